package seats

import (
	"crypto/rand"
	"crypto/sha256"
	"io"
	mathrand "math/rand/v2"
	"sync"
)

// seeded is a stream of pseudo-random bytes that a seed determines. Rounds that tss-lib computes in one goroutine
// repeat exactly; in signing round 2 several goroutines draw from the stream in the order the scheduler gives them.
type seeded struct {
	mutex  sync.Mutex
	stream *mathrand.ChaCha8
}

func (s *seeded) Read(p []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.stream.Read(p)
}

// Randomness is the operating system's, or that of a seed for transcripts that can be recorded again.
func Randomness(seed string) io.Reader {
	if seed == "" {
		return rand.Reader
	}
	return &seeded{stream: mathrand.NewChaCha8(sha256.Sum256([]byte(seed)))}
}
