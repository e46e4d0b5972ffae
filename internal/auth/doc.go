// Package auth is who a client is and what it may do: what a token, the application's backend or its code says of it.
// It knows neither connections nor rooms' state, and is pure but for the clock and the cache of a provider's keys.
//
//	key, err := auth.ReadKey("@public.pem")
//	v := auth.NewVerifier(auth.Options{Key: key, Leeway: 10 * time.Second})
//	defer v.Close()
//	who, err := v.Verify(ctx, token, func() {})
//
// A token is taken apart in this order: its length, its header, the key, the signature, its times, issuer and audience,
// and only then who it is of and what that one may do.
//
//   - identity.go: Identity and Grants, which the rest of the server goes by
//   - token.go: Verifier, up to the signature; claims.go: what is in a token
//   - key.go: the key that is given, and which algorithm is for which; jwks.go: a provider's document; provider.go: the
//     cache of it, the only place with a goroutine, which ends with its fetch
//   - apikey.go: the keys of the HTTP API, and their rights
package auth
