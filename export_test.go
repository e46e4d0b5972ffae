package hubbub

// Refresh is what the hub calls when a client shows a new token.
var Refresh = (*Server).refresh
