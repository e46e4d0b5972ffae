// Package auth is who a client is and what it may do: what a token, the application's backend or its code says of it.
// It knows neither connections nor rooms' state, and is pure but for the clock and the cache of a provider's keys.
//
//   - identity.go: Identity and Grants, which the rest of the server goes by
//   - apikey.go: the keys of the HTTP API, and their rights
package auth
