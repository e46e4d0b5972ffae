// Package metrics puts Hubbub's figures into the form that Prometheus reads. It knows nothing of where they come from:
//
//	registry := metrics.Registry(func() metrics.Snapshot { ... })
//	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
//
// The function is called once for each scrape, from the scrape's goroutine, and may be called by several at once. The
// names are a contract (docs/operations.md has the table): one that is there stays, with its labels and its meaning.
package metrics
