package hubbub

// Refresh is what the hub calls when a client shows a new token.
var Refresh = (*Server).refresh

// Quick answers the publish at the front of b without net/http, where it can.
func Quick(s *Server, b []byte) (answer []byte, used int) {
	return s.api.Quick(s.cfg.BasePath)(b, nil)
}

// TakeSample does what happens every ten seconds.
func TakeSample(s *Server) { s.takeSample() }
