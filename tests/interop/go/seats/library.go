// Package seats puts tss-lib parties at a table that is driven over stdin and stdout.
//
// tss-lib v2 and v3 register the same protobuf names, so that one process can hold only one of them: this package
// knows neither, and each of the two programs beside it (gg18v2, gg18v3) brings its version as a Library.
package seats

import (
	"encoding/json"
	"io"
	"math/big"
)

// Library is one version of tss-lib.
type Library interface {
	// Module is the path under which the version is required in go.mod.
	Module() string
	// Keygen seats one party of a key generation; it does not start it.
	Keygen(Keygen) (Party, error)
	// Signing seats one signer; it does not start it.
	Signing(Signing) (Party, error)
	// PreParams makes one set of pre-parameters (keygen.LocalPreParams). Takes from seconds to many minutes.
	PreParams() (any, error)
	// Vectors computes hashes, challenges and encodings with the library's own functions, on the five saved keys
	// that the module ships.
	Vectors(saves [5]json.RawMessage) (map[string]any, error)
}

// Seat is what keygen and signing have in common.
type Seat struct {
	Keys      []*big.Int // of all who take part, in any order
	Own       *big.Int
	Threshold int       // tss-lib's own: the polynomial's degree, one less than the signers needed
	Rand      io.Reader // safe for concurrent use
	Nonce     *big.Int  // session nonce, nil for none; v2 has none
}

// Keygen is one seat in a key generation.
type Keygen struct {
	Seat
	PreParams json.RawMessage // keygen.LocalPreParams
}

// Signing is one seat in a signing ceremony.
type Signing struct {
	Seat
	Save      json.RawMessage // keygen.LocalPartySaveData
	Message   *big.Int
	FullBytes int // length to which the library pads its copy of the message, 0 for none
}

// Party is one seated tss-lib party. Start and Receive do all their work before they return.
type Party interface {
	Start() *Fault
	Receive(from *big.Int, payload []byte, broadcast bool) *Fault
	// Outgoing takes the messages sent since the last call, in the order of sending.
	Outgoing() ([]Message, error)
	// Result takes the outcome (*Signature or a LocalPartySaveData); nil while there is none.
	Result() any
	// Round is the number of the round under way; 0 before the start and after the end.
	Round() int
	// SSID is the session id inside the party, for vectors; nil before the start.
	SSID() []byte
}

// Message is one wire message with the routing that travels beside it.
type Message struct {
	To        []*big.Int `json:"to"` // nil: everybody
	Broadcast bool       `json:"broadcast"`
	Type      string     `json:"type"` // without the package
	Bytes     []byte     `json:"bytes"`
}

// Fault is tss-lib's error.
type Fault struct {
	Culprits []*big.Int `json:"culprits"` // keys
	Round    int        `json:"round"`
	Text     string     `json:"text"`
}

// Signature is tss-lib's SignatureData.
type Signature struct {
	Signature []byte `json:"signature"` // r || s
	Recovery  []byte `json:"recovery"`
	R         []byte `json:"r"`
	S         []byte `json:"s"`
	M         []byte `json:"m"`
}
