package main

import (
	"errors"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/tss"
)

var nonces = []*big.Int{nil}

func setNonce(_ *tss.Parameters, nonce *big.Int) error {
	if nonce != nil {
		return errors.New("tss-lib v2 has no session nonce")
	}
	return nil
}

// challenges shows the hash inputs that v3 changed, with small numbers in the place of real ones.
func challenges(sessions map[string]string) []any {
	return append(sharedChallenges(sessions),
		challenge("dlnproof: h1 h2 N alpha", nil, dlnInputs()),
		challenge("range: N N+1 c Z U W", nil, ints(15, 16, 7, 11, 13, 17)),
		challenge("bob: N N+1 c1 c2 Z ZPrm T V W", []byte("s"), ints(15, 16, 7, 8, 1, 2, 3, 4, 5)),
		challenge("bob with check: N N+1 X c1 c2 U Z ZPrm T V W", []byte("s"), bobWithCheck(ints(15, 16))),
	)
}
