package seats

import (
	"encoding/json"
	"fmt"
	"math/big"
	"runtime"
	"syscall"
)

// benchmark measures whole committees of one process, one party's steps at a time.
type benchmark struct {
	What      string            `json:"what"` // keygen, signing or preparams
	Threshold int               `json:"threshold"`
	Keys      []*big.Int        `json:"keys"`
	PreParams []json.RawMessage `json:"preparams"` // keygen: one for each key
	Saves     []json.RawMessage `json:"saves"`     // signing: one for each key
	Message   *big.Int          `json:"message"`
	Runs      int               `json:"runs"`
}

// sample is what one party spent and sent in one ceremony.
type sample struct {
	CPU    float64         `json:"cpu_ms"`
	Rounds map[int]float64 `json:"rounds"` // by the round that the step worked towards
	Bytes  int             `json:"bytes"`  // a broadcast counts once for each receiver
}

// cpu is the processor time that the process has used so far, in milliseconds: all threads, and the kernel's part.
func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // RUSAGE_SELF cannot fail
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e6
}

func (b *benchmark) run(library Library) ([]sample, error) {
	var samples []sample
	for range b.Runs {
		if b.What == "preparams" {
			runtime.GC()
			start := cpu()
			if _, err := library.PreParams(); err != nil {
				return nil, err
			}
			samples = append(samples, sample{CPU: cpu() - start})
			continue
		}
		committee, err := b.seat(library)
		if err != nil {
			return nil, err
		}
		measured, err := measure(b.Keys, committee)
		if err != nil {
			return nil, err
		}
		samples = append(samples, measured...)
	}
	return samples, nil
}

func (b *benchmark) seat(library Library) ([]Party, error) {
	committee := make([]Party, len(b.Keys))
	for i, key := range b.Keys {
		seat := Seat{Keys: b.Keys, Own: key, Threshold: b.Threshold, Rand: Randomness("")}
		var err error
		switch {
		case b.What == "keygen" && len(b.PreParams) == len(b.Keys):
			committee[i], err = library.Keygen(Keygen{seat, b.PreParams[i]})
		case b.What == "signing" && len(b.Saves) == len(b.Keys):
			committee[i], err = library.Signing(Signing{seat, b.Saves[i], b.Message, 32})
		default:
			err = fmt.Errorf("cannot measure %q with %d pre-parameter sets and %d saved keys for %d parties",
				b.What, len(b.PreParams), len(b.Saves), len(b.Keys))
		}
		if err != nil {
			return nil, err
		}
	}
	return committee, nil
}

type letter struct {
	from, to int
	Message
}

// measure runs one ceremony to its end and returns one sample for each party.
func measure(keys []*big.Int, committee []Party) ([]sample, error) {
	samples := make([]sample, len(committee))
	seats := map[string]int{}
	for i, key := range keys {
		seats[key.String()] = i
		samples[i].Rounds = map[int]float64{}
	}
	var post []letter
	step := func(i int, act func() *Fault) error {
		round := committee[i].Round() + 1
		runtime.GC() // nobody pays for a neighbour's garbage
		start := cpu()
		fault := act()
		spent := cpu() - start
		samples[i].CPU += spent
		samples[i].Rounds[round] += spent
		if fault != nil {
			return fmt.Errorf("round %d: %s", fault.Round, fault.Text)
		}
		sent, err := committee[i].Outgoing()
		if err != nil {
			return err
		}
		for _, message := range sent {
			if message.To == nil {
				for j := range committee {
					if j != i {
						post = append(post, letter{i, j, message})
					}
				}
			}
			for _, key := range message.To {
				post = append(post, letter{i, seats[key.String()], message})
			}
		}
		return nil
	}
	for i, party := range committee {
		if err := step(i, party.Start); err != nil {
			return nil, err
		}
	}
	for len(post) > 0 {
		l := post[0]
		post = post[1:]
		samples[l.from].Bytes += len(l.Bytes)
		err := step(l.to, func() *Fault { return committee[l.to].Receive(keys[l.from], l.Bytes, l.Broadcast) })
		if err != nil {
			return nil, err
		}
	}
	for i, party := range committee {
		if party.Result() == nil {
			return nil, fmt.Errorf("the party with key %s did not finish", keys[i])
		}
	}
	return samples, nil
}
