// Soak writes through the client for some time and prints what was acknowledged, for tests that break nodes meanwhile.
//
// Usage: soak [-bare] HOST:PORT,HOST:PORT,… SECONDS [PREFIX]. The password is in REDAN_PASSWORD, if there is one. With -bare
// it uses the generated stub alone, and repeats by itself.
//
// On standard output, one line each, written before the next write begins:
//
//	set KEY          the key PREFIX:N was stored with the value N
//	incr KEY VALUE   the counter PREFIX:counter was incremented by one, and the answer was VALUE
//	pipe KEY VALUE   the counter PREFIX:piped was incremented by one within a pipeline, and the answer was VALUE
//	failed TEXT      a write failed for good; the program goes on
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	redan "github.com/redan-kv/redan/clients/go"
	"github.com/redan-kv/redan/clients/go/kvv1"
)

const piped = 5

// writer is what is tried out.
type writer interface {
	set(ctx context.Context, key, value string) error
	increment(ctx context.Context, key string) (int64, error)
	pipeline(ctx context.Context, key string) ([]int64, error)
}

func main() {
	isBare := flag.Bool("bare", false, "use the generated stub alone")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: soak [-bare] ADDRESSES SECONDS [PREFIX]")
		os.Exit(2)
	}
	addresses := strings.Split(flag.Arg(0), ",")
	seconds, err := strconv.ParseFloat(flag.Arg(1), 64)
	check(err)
	prefix := "go"
	if flag.NArg() > 2 {
		prefix = flag.Arg(2)
	}
	var using writer
	if *isBare {
		using, err = newBare(addresses)
	} else {
		using, err = newThin(addresses)
	}
	check(err)
	ctx := context.Background()
	ends := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for number := 1; time.Now().Before(ends); number++ {
		if err := once(ctx, using, prefix, number); err != nil {
			fmt.Println("failed", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
}

func once(ctx context.Context, using writer, prefix string, number int) error {
	key := fmt.Sprintf("%s:%d", prefix, number)
	if err := using.set(ctx, key, strconv.Itoa(number)); err != nil {
		return err
	}
	fmt.Println("set", key)
	value, err := using.increment(ctx, prefix+":counter")
	if err != nil {
		return err
	}
	fmt.Println("incr", prefix+":counter", value)
	values, err := using.pipeline(ctx, prefix+":piped")
	for _, value := range values {
		fmt.Println("pipe", prefix+":piped", value)
	}
	return err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// thin is the client.
type thin struct{ client *redan.Client }

func newThin(addresses []string) (writer, error) {
	client, err := redan.New(
		addresses, redan.WithPassword(os.Getenv("REDAN_PASSWORD")), redan.WithTimeout(100*time.Second, 2*time.Second),
	)
	return thin{client}, err
}

func (t thin) set(ctx context.Context, key, value string) error {
	_, err := t.client.Set(ctx, key, []byte(value))
	return err
}

func (t thin) increment(ctx context.Context, key string) (int64, error) {
	return t.client.Increment(ctx, key, 1)
}

func (t thin) pipeline(ctx context.Context, key string) ([]int64, error) {
	pipeline := t.client.Pipeline()
	for range piped {
		pipeline.Increment(key, 1)
	}
	results, _ := pipeline.Execute(ctx)
	var values []int64
	for _, result := range results {
		value, err := result.Int()
		if err != nil {
			return values, err
		}
		values = append(values, value)
	}
	return values, nil
}

// bare is the generated stub, one of a node; a write goes to the next node until one takes it, with the same request id.
type bare struct {
	stubs []kvv1.KVServiceClient
	at    int
	id    int
}

func newBare(addresses []string) (writer, error) {
	made := &bare{}
	for _, address := range addresses {
		connection, err := grpc.NewClient(
			address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			return nil, err
		}
		made.stubs = append(made.stubs, kvv1.NewKVServiceClient(connection))
	}
	return made, nil
}

func (b *bare) repeat(ctx context.Context, call func(context.Context, kvv1.KVServiceClient, string) error) error {
	b.id++
	id := fmt.Sprintf("%d-%d", os.Getpid(), b.id)
	if password := os.Getenv("REDAN_PASSWORD"); password != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+password)
	}
	var err error
	for ends := time.Now().Add(100 * time.Second); time.Now().Before(ends); time.Sleep(20 * time.Millisecond) {
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		err = call(limited, b.stubs[b.at], id)
		cancel()
		if err == nil {
			return nil
		}
		b.at = (b.at + 1) % len(b.stubs)
	}
	return err
}

func (b *bare) set(ctx context.Context, key, value string) error {
	return b.repeat(ctx, func(ctx context.Context, stub kvv1.KVServiceClient, id string) error {
		_, err := stub.Set(ctx, &kvv1.SetRequest{Key: []byte(key), Value: []byte(value), RequestId: id})
		return err
	})
}

func (b *bare) increment(ctx context.Context, key string) (value int64, err error) {
	err = b.repeat(ctx, func(ctx context.Context, stub kvv1.KVServiceClient, id string) error {
		response, err := stub.Increment(ctx, &kvv1.IncrementRequest{Key: []byte(key), RequestId: id})
		value = response.GetValue()
		return err
	})
	return value, err
}

func (b *bare) pipeline(ctx context.Context, key string) (values []int64, err error) {
	err = b.repeat(ctx, func(ctx context.Context, stub kvv1.KVServiceClient, id string) error {
		values = nil
		stream, err := stub.Pipeline(ctx)
		if err != nil {
			return err
		}
		request := &kvv1.PipelineRequest{}
		for number := range piped {
			command := &kvv1.Command{Args: [][]byte{[]byte("INCR"), []byte(key)}, RequestId: fmt.Sprintf("%s-%d", id, number)}
			request.Commands = append(request.Commands, command)
		}
		if err := stream.Send(request); err != nil {
			return err
		}
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, value := range response.GetValues() {
			if failed := value.GetError(); failed != nil {
				return fmt.Errorf("%s: %s", failed.GetReason(), failed.GetMessage())
			}
			values = append(values, value.GetInteger())
		}
		return stream.CloseSend()
	})
	return values, err
}
