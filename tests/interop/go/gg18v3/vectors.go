package main

import (
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v3/common"
	"github.com/bnb-chain/tss-lib/v3/crypto/ckd"
	"github.com/bnb-chain/tss-lib/v3/crypto/commitments"
	"github.com/bnb-chain/tss-lib/v3/crypto/facproof"
	"github.com/bnb-chain/tss-lib/v3/crypto/paillier"
	"github.com/bnb-chain/tss-lib/v3/crypto/vss"
	"github.com/bnb-chain/tss-lib/v3/ecdsa/keygen"
	"github.com/bnb-chain/tss-lib/v3/ecdsa/resharing"
	"github.com/bnb-chain/tss-lib/v3/ecdsa/signing"
	"github.com/bnb-chain/tss-lib/v3/tss"

	"tssd.test/interop/seats"
)

// Vectors calls the library's own functions only; numbers in the answer are lower-case hexadecimal.
func (l library) Vectors(saves [5]json.RawMessage) (map[string]any, error) {
	var keys [5]keygen.LocalPartySaveData
	for i := range saves {
		if err := json.Unmarshal(saves[i], &keys[i]); err != nil {
			return nil, err
		}
	}
	sessions, err := l.sessions(saves, keys)
	if err != nil {
		return nil, err
	}
	samples, err := wireSamples()
	if err != nil {
		return nil, err
	}
	child, err := derivation(keys[0])
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"bytes":       byteHashes(),
		"integers":    integerHashes(),
		"tagged":      taggedHashes(),
		"commitments": commitment(),
		"ssid":        sessions,
		"challenges":  challenges(sessions),
		"modproof_y":  modproofY(keys[0], sessions),
		"paillier":    paillierProof(keys[0]),
		"derivation":  child,
		"wire":        samples,
	}, nil
}

func text(n *big.Int) string { return fmt.Sprintf("%x", n) }

func texts(numbers []*big.Int) []string {
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = text(n)
	}
	return out
}

func ints(numbers ...int64) []*big.Int {
	out := make([]*big.Int, len(numbers))
	for i, n := range numbers {
		out[i] = big.NewInt(n)
	}
	return out
}

func byteHashes() []any {
	var out []any
	for _, parts := range [][]string{{"abc"}, {"abc", ""}, {"", "abc"}, {""}, {"ab", "c"}, {"$", "$$"}} {
		in, shown := make([][]byte, len(parts)), make([]string, len(parts))
		for i, part := range parts {
			in[i], shown[i] = []byte(part), hex.EncodeToString([]byte(part))
		}
		out = append(out, map[string]any{"in": shown, "out": hex.EncodeToString(common.SHA512_256(in...))})
	}
	return out
}

// dlnInputs is 2, 3, 5 and 128 small numbers: the length of a discrete logarithm proof's input.
func dlnInputs() []*big.Int {
	in := ints(2, 3, 5)
	for i := int64(1); i <= 128; i++ {
		in = append(in, big.NewInt(i))
	}
	return in
}

func inputs() [][]*big.Int {
	wide := new(big.Int).Lsh(big.NewInt(1), 2047)
	return [][]*big.Int{
		ints(1, 2, 3), ints(0), ints(1), ints(0, 0), ints(256, 0, 255), {wide, big.NewInt(36), wide}, dlnInputs(),
	}
}

func integerHashes() []any {
	var out []any
	for _, in := range inputs() {
		out = append(out, map[string]any{"in": texts(in), "out": text(common.SHA512_256i(in...))})
	}
	return out
}

func taggedHashes() []any {
	var out []any
	for _, tag := range []string{"session", "", "s"} {
		for _, in := range inputs() {
			out = append(out, map[string]any{
				"tag": hex.EncodeToString([]byte(tag)), "in": texts(in),
				"out": text(common.SHA512_256i_TAGGED([]byte(tag), in...)),
			})
		}
	}
	return out
}

func commitment() []any {
	g := tss.S256().Params()
	c := commitments.NewHashCommitmentWithRandomness(big.NewInt(5), g.Gx, g.Gy)
	return []any{map[string]any{"random": "5", "secrets": texts([]*big.Int{g.Gx, g.Gy}), "out": text(c.C)}}
}

// sessions starts real parties and reads their session ids.
func (l library) sessions(saves [5]json.RawMessage, keys [5]keygen.LocalPartySaveData) (map[string]string, error) {
	preParams, err := json.Marshal(keys[0].LocalPreParams)
	if err != nil {
		return nil, err
	}
	seat := seats.Seat{Keys: keys[0].Ks, Own: keys[0].Ks[0], Threshold: 2, Rand: seats.Randomness("ssid")}
	out := map[string]string{}
	add := func(name string, p seats.Party, err error) error {
		if err != nil {
			return err
		}
		if fault := p.Start(); fault != nil {
			return fmt.Errorf("%s", fault.Text)
		}
		out[name] = hex.EncodeToString(p.SSID())
		return nil
	}
	for _, nonce := range nonces {
		seat.Nonce, seat.Keys = nonce, keys[0].Ks
		suffix := ""
		if nonce != nil {
			suffix = ", nonce " + text(nonce)
		}
		made, err := l.Keygen(seats.Keygen{Seat: seat, PreParams: preParams})
		if err := add("keygen, all five"+suffix, made, err); err != nil {
			return nil, err
		}
		for name, count := range map[string]int{"first three": 3, "all five": 5} {
			seat.Keys = keys[0].Ks[:count]
			for _, message := range []int64{0, 42} {
				made, err := l.Signing(seats.Signing{Seat: seat, Save: saves[0], Message: big.NewInt(message)})
				name := fmt.Sprintf("signing, %s, message %d%s", name, message, suffix)
				if err := add(name, made, err); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

func modproofY(key keygen.LocalPartySaveData, sessions map[string]string) map[string]any {
	context, w, n := decode(sessions["keygen, all five"]), big.NewInt(2), key.PaillierPKs[0].N
	var y []*big.Int
	for range 3 {
		hash := common.SHA512_256i_TAGGED(context, append([]*big.Int{w, n}, y...)...)
		y = append(y, common.RejectionSample(n, hash))
	}
	return map[string]any{"context": hex.EncodeToString(context), "w": "2", "n": text(n), "y": texts(y)}
}

func paillierProof(key keygen.LocalPartySaveData) map[string]any {
	proof := key.PaillierSK.Proof(key.Ks[0], key.ECDSAPub)
	return map[string]any{
		"k": text(key.Ks[0]), "n": text(key.PaillierSK.N), "y": texts([]*big.Int{key.ECDSAPub.X(), key.ECDSAPub.Y()}),
		"x":  texts(paillier.GenerateXs(paillier.ProofIters, key.Ks[0], key.PaillierSK.N, key.ECDSAPub)),
		"pi": texts(proof[:]),
	}
}

func derivation(key keygen.LocalPartySaveData) (map[string]any, error) {
	chain := make([]byte, 32)
	for i := range chain {
		chain[i] = 0x11
	}
	parent := &ckd.ExtendedKey{
		PublicKey: ecdsa.PublicKey{Curve: tss.S256(), X: key.ECDSAPub.X(), Y: key.ECDSAPub.Y()},
		ChainCode: chain, ParentFP: make([]byte, 4), Version: make([]byte, 4),
	}
	path := []uint32{12, 209, 3}
	delta, child, err := ckd.DeriveChildKeyFromHierarchy(path, parent, tss.S256().Params().N, tss.S256())
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"parent": texts([]*big.Int{parent.X, parent.Y}), "chain": hex.EncodeToString(chain), "path": path,
		"delta": text(delta), "child": texts([]*big.Int{child.X, child.Y}),
	}, nil
}

func wireSamples() (map[string]string, error) {
	from := tss.NewPartyID("1", "", big.NewInt(1))
	zero := big.NewInt(0)
	filler := &facproof.ProofFac{
		P: zero, Q: zero, A: zero, B: zero, T: zero, Sigma: zero, Z1: zero, Z2: zero, W1: zero, W2: zero, V: zero,
	}
	out := map[string]string{}
	for name, message := range map[string]tss.ParsedMessage{
		"SignRound3Message, theta 0x0102":               signing.NewSignRound3Message(from, big.NewInt(0x0102)),
		"DGRound2Message2":                              resharing.NewDGRound2Message2([]*tss.PartyID{from}, from),
		"KGRound2Message1, share 7, no proof (refused)": keygen.NewKGRound2Message1(from, from, &vss.Share{Share: big.NewInt(7)}, filler),
	} {
		payload, _, err := message.WireBytes()
		if err != nil {
			return nil, err
		}
		out[name] = hex.EncodeToString(payload)
	}
	return out, nil
}

func decode(digits string) []byte {
	out, err := hex.DecodeString(digits)
	if err != nil {
		panic(err) // made above
	}
	return out
}

// challenge shows a challenge before its reduction mod q, with its inputs. A nil tag means the untagged hash.
func challenge(proof string, tag []byte, in []*big.Int) map[string]any {
	out := map[string]any{"proof": proof, "in": texts(in)}
	if tag == nil {
		out["out"] = text(common.SHA512_256i(in...))
	} else {
		out["tag"], out["out"] = hex.EncodeToString(tag), text(common.SHA512_256i_TAGGED(tag, in...))
	}
	return out
}

// sharedChallenges are the challenges that both versions compute alike.
func sharedChallenges(sessions map[string]string) []any {
	curve := tss.S256()
	g := []*big.Int{curve.Params().Gx, curve.Params().Gy}
	point := func(k byte) []*big.Int {
		x, y := curve.ScalarBaseMult([]byte{k})
		return []*big.Int{x, y}
	}
	return []any{
		challenge("facproof: N0 NC s t P Q A B T sigma", []byte("s"), ints(15, 21, 2, 4, 1, 2, 3, 4, 5, 6)),
		challenge("schnorr: X G alpha", decode(sessions["signing, first three, message 42"]),
			append(append(point(2), g...), point(3)...)),
		challenge("v-schnorr: V R G alpha", []byte("s"),
			append(append(append(point(2), point(3)...), g...), point(4)...)),
	}
}

// bobWithCheck appends X = G, c1 = 7, c2 = 8, U = 2 G and the proof 1..5 to what the hash begins with.
func bobWithCheck(first []*big.Int) []*big.Int {
	g := tss.S256().Params()
	ux, uy := tss.S256().ScalarBaseMult([]byte{2})
	in := append(first, g.Gx, g.Gy, big.NewInt(7), big.NewInt(8), ux, uy)
	return append(in, ints(1, 2, 3, 4, 5)...)
}
