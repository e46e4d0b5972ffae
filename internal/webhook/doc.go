// Package webhook is what the application's backend is told and asked by HTTP.
//
//   - sign.go: how a request is signed, by the Standard Webhooks specification
package webhook
