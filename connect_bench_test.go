//go:build unix

package hubbub_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// BenchmarkConnect makes sessions and ends them, against three servers in turns: one that wants no token, one that is
// shown HS256 and one that is shown ES256, over the same hundred connects each. An operation is such a round. This
// process is the servers and a child all the clients, so what is reported is the servers' alone, as medians of the
// rounds:
//
//	none-ns, hs256-ns, es256-ns  processor time, the kernel's included, for a session: connect, welcome, close
//	hs256-sig-ns, es256-sig-ns   of that, for the bare verification of the signature
//	hs256-x, es256-x             what a token costs beside its signature: (hs256-ns - hs256-sig-ns) / none-ns
//
//	go test -run '^$' -bench 'Connect$' -benchtime 100x .
func BenchmarkConnect(b *testing.B) {
	const connects = 100
	kinds := benchKinds(b)
	child := startConnects(b)
	for range 3 {
		for _, k := range kinds {
			child.connect(b, connects, k.request)
		}
	}
	spent, bare := map[string][]float64{}, map[string][]float64{}
	b.ResetTimer()
	for range b.N {
		for _, k := range kinds {
			before := processorTime(b)
			child.connect(b, connects, k.request)
			spent[k.name] = append(spent[k.name], float64(processorTime(b)-before)/connects)
			if k.verify != nil {
				before = processorTime(b)
				for range connects {
					k.verify()
				}
				bare[k.name] = append(bare[k.name], float64(processorTime(b)-before)/connects)
			}
		}
	}
	b.StopTimer()
	none := median(spent["none"])
	b.ReportMetric(0, "ns/op") // of the clients' too
	for _, k := range kinds {
		b.ReportMetric(median(spent[k.name]), k.name+"-ns")
		if k.verify != nil {
			b.ReportMetric(median(bare[k.name]), k.name+"-sig-ns")
			b.ReportMetric((median(spent[k.name])-median(bare[k.name]))/none, k.name+"-x")
		}
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

type benchKind struct {
	name    string
	request connectTask
	verify  func() // the bare signature
}

// benchKinds starts a server for each kind.
func benchKinds(b *testing.B) []benchKind {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		b.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	make := func(name, setting string, method jwt.SigningMethod, sign, check any) benchKind {
		k := benchKind{name: name}
		cfg := hubbub.Config{Workers: 1, JWT: hubbub.JWT{Key: setting}}
		path := "/ws"
		if method != nil {
			token, err := jwt.NewWithClaims(method, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(sign)
			if err != nil {
				b.Fatal(err)
			}
			path += "?token=" + token
			last := strings.LastIndexByte(token, '.')
			signature, _ := jwt.NewParser().DecodeSegment(token[last+1:])
			k.verify = func() {
				if err := method.Verify(token[:last], signature, check); err != nil {
					b.Fatal(err)
				}
			}
		}
		s := rawtest.Start(b, cfg)
		k.request = connectTask{Addr: s.Addr, Request: rawtest.Upgrade(s, path)}
		return k
	}
	return []benchKind{
		make("none", "", nil, nil, nil),
		make("hs256", jwtSecret, jwt.SigningMethodHS256, []byte(jwtSecret), []byte(jwtSecret)),
		make("es256", public, jwt.SigningMethodES256, key, &key.PublicKey),
	}
}

// connectTask has the child make so many sessions, eight at a time.
type connectTask struct {
	Addr, Request string
	N             int
}

// connectsVariable is in the child's environment.
const connectsVariable = "HUBBUB_TEST_CONNECTS"

type connects struct {
	tasks *json.Encoder
	done  *json.Decoder
}

func startConnects(b *testing.B) *connects {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), connectsVariable+"=1", "GOMAXPROCS=1")
	child.Stderr = os.Stderr
	in, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := child.Wait(); err != nil {
			b.Errorf("the clients' process: %v", err)
		}
	})
	return &connects{json.NewEncoder(in), json.NewDecoder(out)}
}

func (c *connects) connect(b *testing.B, n int, t connectTask) {
	t.N = n
	var why string
	if err := errors.Join(c.tasks.Encode(t), c.done.Decode(&why)); err != nil || why != "" {
		b.Fatalf("the clients' process: %v %s", err, why)
	}
}

// What follows is the child's side. It runs before the tests would.
func init() {
	if _, ok := os.LookupEnv(connectsVariable); !ok {
		return
	}
	tasks, done := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t connectTask
		if tasks.Decode(&t) != nil { // the benchmark is over
			os.Exit(0)
		}
		why := ""
		if err := t.run(); err != nil {
			why = err.Error()
		}
		done.Encode(why)
	}
}

func (t connectTask) run() error {
	var all sync.WaitGroup
	const side = 8
	errs := make([]error, side)
	for i := range side {
		all.Go(func() {
			for n := i; n < t.N && errs[i] == nil; n += side {
				errs[i] = t.one()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// one is a session from its beginning to its end.
func (t connectTask) one() error {
	nc, err := net.Dial("tcp", t.Addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	if _, err := io.WriteString(nc, t.Request); err != nil {
		return err
	}
	r := bufio.NewReader(nc)
	if status, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(status, "HTTP/1.1 101 ") {
		return fmt.Errorf("%q %w", status, err)
	}
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
	}
	if _, _, err := rawtest.ReadFrame(r); err != nil { // the welcome
		return err
	}
	if _, err := nc.Write(rawtest.Frame(wsclient.Close, true, []byte{0x03, 0xe8})); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}
