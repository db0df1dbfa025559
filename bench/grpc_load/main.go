// Command grpc_load loads an etcd or a Redan cluster through gRPC and prints what it found as JSON.
//
// Both sides are driven by the same loop: so many clients, each on a connection of its own, each sending its next
// request when the last one is answered. An etcd client puts one key a request. A Redan client sets one key a request
// (unary), or a batch of them on one stream (pipeline). Clients go round the endpoints, so that every node serves.
// What is answered counts from when every client has had an answer, for -seconds: neither connecting nor the first
// round counts, and what was on its way at the beginning stands for what still is at the end.
//
// With -trace it measures availability instead: every -every milliseconds each endpoint gets one more write, whether or
// not earlier ones were answered, and each write that is acknowledged is printed as "sent answered endpoint", in ns of
// the wall clock, so that a program that kills nodes meanwhile can tell how long nobody took a write.
//
// Leaves to the caller: starting the clusters, and bounding the run by -seconds.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	kvv1 "redan.bench/grpc_load/kvv1"
)

type settings struct {
	target    string
	endpoints []string
	clients   int
	seconds   float64
	keys      int
	value     []byte
	batch     int
}

// startMax bounds the time until every client has had an answer.
const startMax = 15 * time.Second

// result is what one run prints; latencies are of requests, in ms, and rate counts writes.
type result struct {
	Writes  int     `json:"writes"`
	Errors  int     `json:"errors"`
	Error   string  `json:"first_error,omitempty"`
	Rate    float64 `json:"rate"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p999_ms"`
	Seconds float64 `json:"seconds"`
}

// A writer makes one request and returns how many writes it held.
type writer func(ctx context.Context, chance *rand.Rand) (int, error)

func key(s *settings, chance *rand.Rand) []byte {
	return []byte(fmt.Sprintf("key:%012d", chance.Intn(s.keys)))
}

func etcdWriter(s *settings, connection *grpc.ClientConn) writer {
	client := etcdserverpb.NewKVClient(connection)
	return func(ctx context.Context, chance *rand.Rand) (int, error) {
		_, err := client.Put(ctx, &etcdserverpb.PutRequest{Key: key(s, chance), Value: s.value})
		return 1, err
	}
}

func unaryWriter(s *settings, connection *grpc.ClientConn) writer {
	client := kvv1.NewKVServiceClient(connection)
	return func(ctx context.Context, chance *rand.Rand) (int, error) {
		_, err := client.Set(ctx, &kvv1.SetRequest{Key: key(s, chance), Value: s.value})
		return 1, err
	}
}

func pipelineWriter(ctx context.Context, s *settings, connection *grpc.ClientConn) (writer, error) {
	stream, err := kvv1.NewKVServiceClient(connection).Pipeline(ctx)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, chance *rand.Rand) (int, error) {
		request := &kvv1.PipelineRequest{}
		for i := 0; i < s.batch; i++ {
			arguments := [][]byte{[]byte("SET"), key(s, chance), s.value}
			request.Commands = append(request.Commands, &kvv1.Command{Args: arguments})
		}
		if err := stream.Send(request); err != nil {
			return 0, err
		}
		response, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		for _, value := range response.Values {
			if refused := value.GetError(); refused != nil {
				return 0, fmt.Errorf("refused: %v", refused)
			}
		}
		return len(response.Values), nil
	}, nil
}

// A starter lets a run begin to count once every client has had an answer, or has given up.
type starter struct {
	missing atomic.Int64
	counts  atomic.Bool
	begin   func()
}

func (s *starter) ready() {
	if s.missing.Add(-1) == 0 {
		s.begin()
		s.counts.Store(true)
	}
}

// run drives one client until the context ends and sends its latencies and counts.
func run(ctx context.Context, s *settings, number int, crew *starter, out chan<- []float64, counts chan<- result) {
	found := result{}
	var latencies []float64
	ready := sync.OnceFunc(crew.ready)
	defer func() {
		ready()
		out <- latencies
		counts <- found
	}()
	fail := func(err error) {
		found.Errors++
		if found.Error == "" {
			found.Error = err.Error()
		}
	}
	endpoint := s.endpoints[number%len(s.endpoints)]
	connection, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
		return
	}
	defer connection.Close()
	chance := rand.New(rand.NewSource(int64(number)))
	var write writer
	switch s.target {
	case "etcd":
		write = etcdWriter(s, connection)
	case "redan":
		write = unaryWriter(s, connection)
	default:
		if write, err = pipelineWriter(ctx, s, connection); err != nil {
			fail(err)
			return
		}
	}
	for ctx.Err() == nil {
		started := time.Now()
		count, err := write(ctx, chance)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			fail(err)
			if s.target == "redan-pipeline" {
				return
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		ready()
		if crew.counts.Load() {
			latencies = append(latencies, float64(time.Since(started).Microseconds())/1000)
			found.Writes += count
		}
	}
}

func percentile(ordered []float64, share float64) float64 {
	if len(ordered) == 0 {
		return 0
	}
	return ordered[min(len(ordered)-1, int(float64(len(ordered))*share))]
}

func load(s *settings) result {
	ctx, cancel := context.WithTimeout(context.Background(), startMax+time.Duration(s.seconds*float64(time.Second)))
	defer cancel()
	out := make(chan []float64, s.clients)
	counts := make(chan result, s.clients)
	started := time.Now()
	crew := &starter{begin: func() {
		started = time.Now()
		time.AfterFunc(time.Duration(s.seconds*float64(time.Second)), cancel)
	}}
	crew.missing.Store(int64(s.clients))
	var group sync.WaitGroup
	for number := range s.clients {
		group.Add(1)
		go func() {
			defer group.Done()
			run(ctx, s, number, crew, out, counts)
		}()
	}
	group.Wait()
	total := result{Seconds: time.Since(started).Seconds()}
	var all []float64
	for range s.clients {
		all = append(all, <-out...)
		part := <-counts
		total.Writes += part.Writes
		total.Errors += part.Errors
		if total.Error == "" {
			total.Error = part.Error
		}
	}
	sort.Float64s(all)
	total.Rate = float64(total.Writes) / total.Seconds
	total.P50, total.P99, total.P999 = percentile(all, 0.5), percentile(all, 0.99), percentile(all, 0.999)
	return total
}

// outstandingMax bounds the unanswered writes of one endpoint in a trace: two seconds of one every 5 ms.
const outstandingMax = 400

// trace sends writes to one endpoint at a steady pace until the context ends.
func trace(ctx context.Context, s *settings, number int, every time.Duration, lines chan<- string) {
	connection, err := grpc.NewClient(s.endpoints[number],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, Jitter: 0.1, MaxDelay: 100 * time.Millisecond,
		}, MinConnectTimeout: time.Second}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer connection.Close()
	write := unaryWriter(s, connection)
	if s.target == "etcd" {
		write = etcdWriter(s, connection)
	}
	outstanding := make(chan struct{}, outstandingMax)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case outstanding <- struct{}{}:
		default:
			continue
		}
		go func() {
			defer func() { <-outstanding }()
			limited, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			sent := time.Now()
			if _, err := write(limited, rand.New(rand.NewSource(sent.UnixNano()))); err == nil {
				lines <- fmt.Sprintf("%d %d %s\n", sent.UnixNano(), time.Now().UnixNano(), s.endpoints[number])
			}
		}()
	}
}

func traceAll(s *settings, every time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.seconds*float64(time.Second)))
	defer cancel()
	lines := make(chan string, 1024)
	for number := range s.endpoints {
		go trace(ctx, s, number, every, lines)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		select {
		case <-ctx.Done():
			return
		case line := <-lines:
			out.WriteString(line)
			if len(lines) == 0 {
				out.Flush()
			}
		}
	}
}

func main() {
	s := settings{}
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "host:port of the nodes, by commas")
	valueBytes := flag.Int("value-bytes", 64, "size of a value")
	flag.StringVar(&s.target, "target", "etcd", "etcd, redan or redan-pipeline")
	flag.IntVar(&s.clients, "clients", 50, "clients, each with a connection")
	flag.Float64Var(&s.seconds, "seconds", 5, "how long")
	flag.IntVar(&s.keys, "keys", 100000, "how many different keys")
	flag.IntVar(&s.batch, "batch", 16, "commands of a pipeline's request")
	isTrace := flag.Bool("trace", false, "print every acknowledged write instead of a summary")
	every := flag.Duration("every", 5*time.Millisecond, "with -trace: time between writes to one endpoint")
	flag.Parse()
	s.endpoints = strings.Split(*endpoints, ",")
	s.value = []byte(strings.Repeat("x", *valueBytes))
	if *isTrace {
		traceAll(&s, *every)
		return
	}
	if err := json.NewEncoder(os.Stdout).Encode(load(&s)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
