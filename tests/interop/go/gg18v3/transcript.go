package main

import (
	"math/big"

	"github.com/bnb-chain/tss-lib/v3/tss"
)

// nonces has none, a small one and one of 256 bits.
var nonces = []*big.Int{nil, big.NewInt(7), new(big.Int).Lsh(big.NewInt(3), 254)}

func setNonce(params *tss.Parameters, nonce *big.Int) error {
	params.SetSessionNonce(nonce)
	return nil
}

// challenges shows the hash inputs that v3 changed, with small numbers in the place of real ones.
func challenges(sessions map[string]string) []any {
	ring := ints(21, 2, 4)
	return append(sharedChallenges(sessions),
		challenge("dlnproof: h1 h2 N alpha", []byte("s"), dlnInputs()),
		challenge("range: N N+1 NT h1 h2 c Z U W", []byte("s"), append(append(ints(15, 16), ring...), ints(7, 11, 13, 17)...)),
		challenge("bob: N N+1 NT h1 h2 c1 c2 Z ZPrm T V W", []byte("s"),
			append(append(ints(15, 16), ring...), ints(7, 8, 1, 2, 3, 4, 5)...)),
		challenge("bob with check: N N+1 NT h1 h2 X c1 c2 U Z ZPrm T V W", []byte("s"),
			bobWithCheck(append(ints(15, 16), ring...))),
	)
}
