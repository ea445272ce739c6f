package seats

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"runtime/debug"
)

// command is one line of input. Which fields count depends on Cmd.
type command struct {
	Cmd       string          `json:"cmd"`
	Party     string          `json:"party"` // the caller's name for a seat
	Keys      []*big.Int      `json:"keys"`
	Own       *big.Int        `json:"own"`
	Threshold int             `json:"threshold"`
	Seed      string          `json:"seed"`
	Nonce     *big.Int        `json:"nonce"`
	PreParams json.RawMessage `json:"preparams"`

	Save      json.RawMessage `json:"save"`
	Message   *big.Int        `json:"message"`
	FullBytes int             `json:"full_bytes"`

	From      *big.Int `json:"from"`
	Broadcast bool     `json:"broadcast"`
	Bytes     []byte   `json:"bytes"`

	Saves [5]json.RawMessage `json:"saves"`
	Bench *benchmark         `json:"bench"`
}

// Serve obeys one command a line until the input ends. Every command is answered by any number of events, one a
// line, and then by {"event": "ready"}.
func Serve(library Library, in io.Reader, out io.Writer) error {
	table := &table{library: library, parties: map[string]Party{}, out: json.NewEncoder(out)}
	commands := json.NewDecoder(in)
	commands.DisallowUnknownFields()
	for {
		var c command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("malformed command: %w", err)
		}
		if err := table.obey(c); err != nil {
			table.say("refused", map[string]any{"party": c.Party, "text": err.Error()})
		}
		table.say("ready", nil)
		if table.broken != nil {
			return table.broken
		}
	}
}

type table struct {
	library Library
	parties map[string]Party
	out     *json.Encoder
	broken  error // of the output
}

func (t *table) say(event string, fields map[string]any) {
	line := map[string]any{"event": event}
	for name, value := range fields {
		line[name] = value
	}
	if err := t.out.Encode(line); err != nil {
		t.broken = err
	}
}

func (t *table) obey(c command) error {
	seat := Seat{Keys: c.Keys, Own: c.Own, Threshold: c.Threshold, Rand: Randomness(c.Seed), Nonce: c.Nonce}
	switch c.Cmd {
	case "keygen":
		party, err := t.library.Keygen(Keygen{seat, c.PreParams})
		return t.begin(c.Party, party, err)
	case "signing":
		party, err := t.library.Signing(Signing{seat, c.Save, c.Message, c.FullBytes})
		return t.begin(c.Party, party, err)
	case "receive":
		party, ok := t.parties[c.Party]
		if !ok {
			return fmt.Errorf("no party is called %q", c.Party)
		}
		if c.From == nil {
			return errors.New("a message needs a sender")
		}
		return t.report(c.Party, party, party.Receive(c.From, c.Bytes, c.Broadcast))
	case "leave":
		delete(t.parties, c.Party)
		return nil
	case "preparams":
		start := cpu()
		made, err := t.library.PreParams()
		if err != nil {
			return err
		}
		t.say("preparams", map[string]any{"preparams": made, "cpu_ms": cpu() - start})
		return nil
	case "vectors":
		vectors, err := t.library.Vectors(c.Saves)
		if err != nil {
			return err
		}
		t.say("vectors", map[string]any{"vectors": vectors})
		return nil
	case "bench":
		if c.Bench == nil {
			return errors.New("a benchmark needs to know what to measure")
		}
		measured, err := c.Bench.run(t.library)
		if err != nil {
			return err
		}
		t.say("bench", map[string]any{"measured": measured})
		return nil
	case "origin":
		return t.origin()
	}
	return fmt.Errorf("unknown command %q", c.Cmd)
}

func (t *table) begin(name string, party Party, err error) error {
	if err != nil {
		return err
	}
	if _, taken := t.parties[name]; taken {
		return fmt.Errorf("a party is already called %q", name)
	}
	t.parties[name] = party
	return t.report(name, party, party.Start())
}

// report says what the last step of a party brought about.
func (t *table) report(name string, party Party, fault *Fault) error {
	messages, err := party.Outgoing()
	if err != nil {
		return err
	}
	for _, m := range messages {
		t.say("message", map[string]any{
			"party": name, "to": m.To, "broadcast": m.Broadcast, "type": m.Type, "bytes": m.Bytes,
		})
	}
	if fault != nil {
		t.say("error", map[string]any{
			"party": name, "culprits": fault.Culprits, "round": fault.Round, "text": fault.Text,
		})
		return nil
	}
	switch result := party.Result().(type) {
	case nil:
	case *Signature:
		t.say("signature", map[string]any{"party": name, "signature": result, "ssid": party.SSID()})
	default:
		t.say("save", map[string]any{"party": name, "save": result, "ssid": party.SSID()})
	}
	return nil
}

// origin names the version of tss-lib that is linked in, with its checksum, and the Go version.
func (t *table) origin() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("built without module information")
	}
	for _, module := range info.Deps {
		if module.Path == t.library.Module() {
			t.say("origin", map[string]any{
				"module": module.Path, "version": module.Version, "sum": module.Sum,
				"replaced": module.Replace != nil, "go": info.GoVersion,
			})
			return nil
		}
	}
	return fmt.Errorf("%s is not linked in", t.library.Module())
}
