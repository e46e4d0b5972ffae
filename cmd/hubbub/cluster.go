package main

import "example.com/hubbub"

// clusterFlags are the settings of serve that bring nodes together.
type clusterFlags struct {
	ClusterListen    string   `placeholder:"ADDR" help:"Makes this node a store, which keeps the logs of rooms for all: host:port or :port for other nodes; the port above is for other stores. It needs --data-dir and --cluster-secret."`
	ClusterAdvertise string   `placeholder:"ADDR" help:"Where other nodes find it: host:port, or a host with the same port (what --cluster-listen has)."`
	Join             []string `placeholder:"ADDR" help:"The stores' addresses, host:port; again for each, or with commas. A store's own may be among them."`
	ClusterSecret    secret   `placeholder:"SECRET" help:"What nodes know each other by, 16 bytes or more, the same on all; better in the environment, since all on the machine see the command line. hubbub cluster init makes one."`
	ClusterName      string   `placeholder:"NAME" help:"Tells clusters apart that share NATS servers, or whose stores could reach each other (hubbub)."`
	ClusterTLSCert   string   `name:"cluster-tls-cert" placeholder:"FILE" help:"Certificate of this node for TLS between nodes, PEM. All nodes have one or none."`
	ClusterTLSKey    string   `name:"cluster-tls-key" placeholder:"FILE" help:"Its key, PEM."`
	ClusterTLSCA     string   `name:"cluster-tls-ca" placeholder:"FILE" help:"Who signs for all nodes, PEM."`
	Replicas         int      `default:"0" placeholder:"N" help:"How many stores keep each room's log: 1, 3 or 5 (0: as many as there are; with --nats 3 where its servers are a cluster)."`
	NATS             natsURLs `name:"nats" placeholder:"URL" help:"NATS servers with JetStream that you run, in the place of stores: nats://host:4222 or tls://host:4222, with commas."`
	NATSCreds        string   `name:"nats-creds" placeholder:"FILE" help:"Credentials of an account there, which must be Hubbub's alone."`
	NATSCA           string   `name:"nats-ca" placeholder:"FILE" help:"Who signs for these servers, PEM (the system's)."`
}

// natsURLs are addresses that may have passwords in them.
type natsURLs []string

func (c *clusterFlags) cluster() hubbub.Cluster {
	return hubbub.Cluster{
		Name: c.ClusterName, Secret: string(c.ClusterSecret), Listen: c.ClusterListen, Advertise: c.ClusterAdvertise, Join: c.Join, Replicas: c.Replicas,
		TLSCert: c.ClusterTLSCert, TLSKey: c.ClusterTLSKey, TLSCA: c.ClusterTLSCA,
	}
}
