package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A cluster has begun once there is a stream of this name, which has one message with nothing in it. Before, nobody
// makes streams: a store that was alone may have some, which the cluster is to have.
const (
	beginning        = streamPrefix + "BEGINNING"
	beginningSubject = "hb.beginning"
)

// bringsKey is in a server's metadata where its store has what it had when it was alone.
const bringsKey = "hubbub-brings"

// begin says whether the cluster has begun, and has it do so where this store is the one to.
func (s *stores) begin() error {
	ctx, cancel := context.WithTimeout(s.b.ctx, apiTimeout)
	defer cancel()
	_, err := s.b.js.Stream(ctx, beginning)
	if err == nil {
		s.begun = true
		if s.brought { // that it has begun wasn't answered
			return s.b.server.taken()
		}
		if s.b.server.brings() {
			s.b.log.Warn("this store had a history when it was alone, but the cluster has begun without it: it stays where it is, unused", "folder", s.b.server.aside())
		}
		return nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("the stores: %w", err)
	}
	if s.b.server.clustered() {
		if err := s.mayBegin(ctx); err != nil {
			return err
		}
	}
	_, err = s.b.createStream(ctx, jetstream.StreamConfig{
		Name: beginning, Subjects: []string{beginningSubject}, MaxMsgs: 1, Storage: jetstream.FileStorage, Replicas: s.b.cfg.Replicas,
	})
	if err != nil {
		return fmt.Errorf("the stores: %w", err)
	}
	s.begun = true
	return s.b.server.taken()
}

// mayBegin takes over what this store had when it was alone, where no other brings something. It is an error where the
// beginning is another store's to make.
func (s *stores) mayBegin(ctx context.Context) error {
	known, err := gather[server.ServerStatsMsg](ctx, s.system, "STATSZ", nil, allOf)
	if err != nil {
		return fmt.Errorf("the stores: %w", err)
	}
	if len(known) <= len(s.others) {
		return fmt.Errorf("the cluster begins when all its stores are there: %d of %d are", len(known), len(s.others)+1)
	}
	own := s.b.server.running()
	var bring []string
	for _, m := range known {
		if m.Server.Metadata[bringsKey] != "" {
			bring = append(bring, m.Server.Name)
		}
	}
	slices.Sort(bring)
	switch {
	case len(bring) == 0 && own != nil && own.JetStreamIsLeader():
		return nil
	case len(bring) == 0:
		return errors.New("the cluster begins just now")
	case own == nil:
		return errors.New("this store's server is down")
	case bring[0] != own.Name():
		return fmt.Errorf("the cluster takes over the history of the store %s", bring[0])
	}
	if s.brought { // copied once more it would lose what the cluster has by now, should it have begun after all
		return nil
	}
	s.b.log.Info("the cluster takes over the history that this store had when it was alone", "folder", s.b.server.aside())
	if err := s.bring(); err != nil {
		s.b.pause(askEvery)
		return fmt.Errorf("the history that this store had when it was alone (in %s; without that folder the cluster begins with none): %w", s.b.server.aside(), err)
	}
	s.brought = true
	return nil
}

// bring copies all streams that this store had.
func (s *stores) bring() error {
	old := &embedded{dir: s.b.server.aside(), log: s.b.server.log}
	if err := old.start(); err != nil {
		return err
	}
	defer old.stop()
	from, err := client.Connect(client.DefaultURL, client.InProcessServer(old), client.NoReconnect())
	if err != nil {
		return err
	}
	defer from.Close()
	js, err := jetstream.New(from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.b.ctx, startTimeout)
	defer cancel()
	list := js.StreamNames(ctx)
	for name := range list.Name() {
		if !strings.HasPrefix(name, streamPrefix) && name != agreedStream || name == beginning {
			continue
		}
		if err := s.copyStream(from, name); err != nil {
			return fmt.Errorf("the stream %s: %w", name, err)
		}
	}
	return list.Err()
}

// copyStream copies a stream with its offsets. What an earlier try has left is removed: nobody else makes streams yet.
func (s *stores) copyStream(from *client.Conn, name string) error {
	ctx, cancel := context.WithTimeout(s.b.ctx, 10*startTimeout)
	defer cancel()
	if err := s.b.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	inbox := from.NewInbox()
	chunks, err := from.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer chunks.Unsubscribe()
	var snapshot server.JSApiStreamSnapshotResponse
	if err := ask(ctx, from, "$JS.API.STREAM.SNAPSHOT."+name, server.JSApiStreamSnapshotRequest{DeliverSubject: inbox, NoConsumers: true}, &snapshot, &snapshot.ApiResponse); err != nil {
		return err
	}
	config := *snapshot.Config
	config.Replicas = cmp.Or(ownReplicas(name), s.b.cfg.Replicas)
	var restore server.JSApiStreamRestoreResponse
	if err := ask(ctx, s.b.send, "$JS.API.STREAM.RESTORE."+name, server.JSApiStreamRestoreRequest{Config: config, State: *snapshot.State}, &restore, &restore.ApiResponse); err != nil {
		return err
	}
	for {
		chunk, err := chunks.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		if status := chunk.Header.Get("Status"); len(chunk.Data) == 0 && status != "" && status != "204" {
			return fmt.Errorf("reading it failed: %s %s", status, chunk.Header.Get("Description"))
		}
		answer, err := s.b.send.RequestWithContext(ctx, restore.DeliverSubject, chunk.Data)
		for errors.Is(err, client.ErrNoResponders) && s.b.pause(retryAfter) { // its leader isn't known to this server yet, or not any more
			answer, err = s.b.send.RequestWithContext(ctx, restore.DeliverSubject, chunk.Data)
		}
		if err != nil {
			return err
		}
		if len(answer.Data) > 0 || len(chunk.Data) == 0 { // it has ended, well or not
			var end server.JSApiStreamCreateResponse
			if err := json.Unmarshal(answer.Data, &end); err != nil {
				return err
			}
			return end.ToError()
		}
		if chunk.Reply != "" {
			if err := chunk.Respond(nil); err != nil {
				return err
			}
		}
	}
}

// ask asks JetStream something that its client has no method for.
func ask(ctx context.Context, c *client.Conn, subject string, question, answer any, failed *server.ApiResponse) error {
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	m, err := c.RequestWithContext(ctx, subject, data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return err
	}
	return failed.ToError()
}

// brings says whether the store has what it had when it was alone.
func (e *embedded) brings() bool {
	_, err := os.Stat(e.aside())
	return err == nil
}

// taken notes that the cluster has what the store had when it was alone.
func (e *embedded) taken() error {
	if !e.clustered() || !e.brings() {
		return nil
	}
	to := e.dir + ".taken-over-" + time.Now().UTC().Format("20060102-150405")
	e.log.Info("the cluster has the history that this store had when it was alone; the old folder isn't needed any more", "folder", to)
	return os.Rename(e.aside(), to)
}
