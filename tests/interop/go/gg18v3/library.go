// Program gg18v3 seats parties of tss-lib v3; package seats has the commands it obeys.
//
// This file is the same in gg18v2 and gg18v3 but for the version in the import paths; transcript.go holds what differs.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bnb-chain/tss-lib/v3/common"
	"github.com/bnb-chain/tss-lib/v3/ecdsa/keygen"
	"github.com/bnb-chain/tss-lib/v3/ecdsa/signing"
	"github.com/bnb-chain/tss-lib/v3/tss"

	"tssd.test/interop/seats"
)

func main() {
	if err := seats.Serve(library{}, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type library struct{}

func (library) Module() string { return "github.com/bnb-chain/tss-lib/v3" }

func (library) Keygen(k seats.Keygen) (seats.Party, error) {
	var preParams keygen.LocalPreParams
	if err := json.Unmarshal(k.PreParams, &preParams); err != nil {
		return nil, fmt.Errorf("pre-parameters: %w", err)
	}
	if !preParams.ValidateWithProof() {
		return nil, errors.New("the pre-parameters are not complete")
	}
	params, err := parameters(k.Seat)
	if err != nil {
		return nil, err
	}
	out, end := outbox(k.Seat), make(chan *keygen.LocalPartySaveData, 1)
	return &party{
		Party: keygen.NewLocalParty(params, out, end, preParams), ids: params.Parties().IDs(), out: out,
		result: func() any {
			select {
			case save := <-end:
				return save
			default:
				return nil
			}
		},
	}, nil
}

func (library) Signing(s seats.Signing) (seats.Party, error) {
	var save keygen.LocalPartySaveData
	if err := json.Unmarshal(s.Save, &save); err != nil {
		return nil, fmt.Errorf("saved key: %w", err)
	}
	if s.Message == nil {
		return nil, errors.New("a signing needs a message")
	}
	params, err := parameters(s.Seat)
	if err != nil {
		return nil, err
	}
	out, end := outbox(s.Seat), make(chan *common.SignatureData, 1)
	return &party{
		Party: signing.NewLocalParty(s.Message, params, save, out, end, s.FullBytes), ids: params.Parties().IDs(), out: out,
		result: func() any {
			select {
			case d := <-end:
				return &seats.Signature{Signature: d.Signature, Recovery: d.SignatureRecovery, R: d.R, S: d.S, M: d.M}
			default:
				return nil
			}
		},
	}, nil
}

func (library) PreParams() (any, error) {
	// One goroutine for the ring's primes and two for Paillier's is the least that the library can be told to use.
	return keygen.GeneratePreParams(time.Hour, 1)
}

func parameters(s seats.Seat) (*tss.Parameters, error) {
	ids := make(tss.UnSortedPartyIDs, len(s.Keys))
	for i, key := range s.Keys {
		ids[i] = tss.NewPartyID(key.String(), "", key)
	}
	sorted := tss.SortPartyIDs(ids)
	if s.Own == nil || sorted.FindByKey(s.Own) == nil {
		return nil, errors.New("the own key is not among the keys")
	}
	params := tss.NewParameters(
		tss.S256(), tss.NewPeerContext(sorted), sorted.FindByKey(s.Own), len(sorted), s.Threshold)
	params.SetRand(s.Rand)
	params.SetPartialKeyRand(s.Rand)
	return params, setNonce(params, s.Nonce)
}

// outbox has room for all that one party sends in a ceremony, so that a step never waits for its messages to be taken.
func outbox(s seats.Seat) chan tss.Message {
	return make(chan tss.Message, 2*len(s.Keys)+16)
}

type party struct {
	tss.Party
	ids    tss.SortedPartyIDs
	out    chan tss.Message
	result func() any
}

func (p *party) Start() *seats.Fault { return fault(p.Party.Start()) }

func (p *party) Receive(from *big.Int, payload []byte, broadcast bool) *seats.Fault {
	sender := p.ids.FindByKey(from)
	if sender == nil { // let the library decide about a stranger
		sender = tss.NewPartyID(from.String(), "", from)
		sender.Index = len(p.ids)
	}
	_, err := p.UpdateFromBytes(payload, sender, broadcast)
	return fault(err)
}

func (p *party) Outgoing() ([]seats.Message, error) {
	var messages []seats.Message
	for {
		select {
		case m := <-p.out:
			payload, routing, err := m.WireBytes()
			if err != nil {
				return nil, err
			}
			var to []*big.Int
			for _, receiver := range routing.To {
				to = append(to, receiver.KeyInt())
			}
			messages = append(messages, seats.Message{
				To: to, Broadcast: routing.IsBroadcast, Type: m.Type()[strings.LastIndexByte(m.Type(), '.')+1:], Bytes: payload,
			})
		default:
			return messages, nil
		}
	}
}

func (p *party) Result() any { return p.result() }

var roundAtEnd = regexp.MustCompile(`round: (\d+)$`)

func (p *party) Round() int {
	found := roundAtEnd.FindStringSubmatch(p.String())
	if found == nil {
		return 0
	}
	number, err := strconv.Atoi(found[1])
	if err != nil {
		return 0
	}
	return number
}

// SSID reads a private field: nothing that the library exports shows the session id.
func (p *party) SSID() []byte {
	return reflect.ValueOf(p.Party).Elem().FieldByName("temp").FieldByName("ssid").Bytes()
}

func fault(err *tss.Error) *seats.Fault {
	if err == nil {
		return nil
	}
	culprits := []*big.Int{}
	for _, culprit := range err.Culprits() {
		culprits = append(culprits, culprit.KeyInt())
	}
	return &seats.Fault{Culprits: culprits, Round: err.Round(), Text: err.Error()}
}
