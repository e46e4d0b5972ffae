package auth

import (
	"github.com/golang-jwt/jwt/v5"
	"testing"
)

func BenchmarkVerify(b *testing.B) {
	for _, kind := range []string{"hs256", "es256"} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			var v *Verifier
			var token string
			if kind == "hs256" {
				v, token = with(b, secret, Options{}), bySecret(b, nil)
			} else {
				v, token = with(b, publicPEM(b, ecKey()), Options{}), sign(b, jwt.SigningMethodES256, ecKey(), good(nil))
			}
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token, func() {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
