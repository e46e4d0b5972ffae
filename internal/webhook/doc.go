// Package webhook is what the application's backend is told and asked by HTTP.
//
//   - sign.go: how a request is signed, by the Standard Webhooks specification
//   - question.go: the questions: may this client come in, join, publish, and what is answered to its requests
//   - question_ask.go: how one is put, and what keeps an answer from counting
//   - question_answer.go: the answers, to the letter
//   - question_counts.go: what became of them, and how long they took
package webhook
