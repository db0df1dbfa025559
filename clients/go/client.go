// Package redan is the client of the key-value service Redan.
//
// It asks the leader, which it finds by itself, and repeats what is safe: reads, what the cluster says it did not do, and
// writes whose outcome is unknown, since each write carries a request id and runs once however often it arrives.
package redan

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/redan-kv/redan/clients/go/clusterv1"
	"github.com/redan-kv/redan/clients/go/kvv1"
)

const (
	// messageBytesMax is the server's own bound, by default; gRPC's of 4 MiB is too small for values of 16 MiB.
	messageBytesMax = 64 << 20
)

type options struct {
	password       string
	database       uint32
	requestIDs     bool
	timeout        time.Duration
	attemptTimeout time.Duration
	firstPause     time.Duration
	longestPause   time.Duration
}

// Option sets something about a client.
type Option func(*options)

// WithPassword proves who asks; gRPC carries printable ASCII alone.
func WithPassword(password string) Option { return func(o *options) { o.password = password } }

// WithDatabase chooses a database, 0 by default.
func WithDatabase(number uint32) Option { return func(o *options) { o.database = number } }

// WithoutRequestIDs sends writes without ids: one whose outcome is unknown is not repeated then.
func WithoutRequestIDs() Option { return func(o *options) { o.requestIDs = false } }

// WithTimeout bounds a call with all of its attempts (10 seconds by default), and one attempt (3 seconds): a node that
// hangs is left after that, and after a third of it when asked who leads.
func WithTimeout(call, attempt time.Duration) Option {
	return func(o *options) { o.timeout, o.attemptTimeout = call, attempt }
}

// WithPauses bounds the pause before the second attempt (20 ms by default) and before any (0.5 s).
func WithPauses(first, longest time.Duration) Option {
	return func(o *options) { o.firstPause, o.longestPause = first, longest }
}

// Client reads and writes keys of a cluster. Goroutines may share one.
type Client struct {
	options options
	routes  *routes

	mutex       sync.Mutex
	connections map[string]*grpc.ClientConn
	isClosed    bool
}

// New returns a client that knows the addresses of some nodes, host:port. Nothing is connected yet.
func New(addresses []string, given ...Option) (*Client, error) {
	routes, err := newRoutes(addresses)
	if err != nil {
		return nil, err
	}
	client := &Client{
		options: options{
			requestIDs:     true,
			timeout:        10 * time.Second,
			attemptTimeout: 3 * time.Second,
			firstPause:     20 * time.Millisecond,
			longestPause:   500 * time.Millisecond,
		},
		routes:      routes,
		connections: map[string]*grpc.ClientConn{},
	}
	for _, option := range given {
		option(&client.options)
	}
	o := &client.options
	for _, char := range []byte(o.password) {
		if char < ' ' || char > '~' {
			return nil, errors.New("redan: the password has characters that gRPC cannot carry: it takes printable ASCII")
		}
	}
	if min(o.timeout, o.attemptTimeout, o.firstPause, o.longestPause) <= 0 {
		return nil, errors.New("redan: timeouts and pauses have to be greater than 0")
	}
	return client, nil
}

// Close closes all connections.
func (c *Client) Close() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.isClosed = true
	var found error
	for _, connection := range c.connections {
		found = errors.Join(found, connection.Close())
	}
	clear(c.connections)
	return found
}

// Status returns how the cluster stands, as one of its nodes sees it.
func (c *Client) Status(ctx context.Context) (*clusterv1.StatusResponse, error) {
	attempts := newAttempts(&c.options, time.Now())
	for {
		var last *Error
		for _, address := range c.routes.candidates(time.Now()) {
			status, err := c.askStatus(ctx, address, attempts.limit(time.Now()))
			if err == nil {
				return status, nil
			}
			if last = err; err.outcome == ErrRejected || ctx.Err() != nil {
				return nil, err
			}
			c.routes.failed(address, time.Now())
		}
		if err := c.pause(ctx, attempts, "", last, true); err != nil {
			return nil, err
		}
	}
}

// Entry is a key that a scan found.
type Entry struct {
	Key string
	// Value is the string at the key, if values were asked for; nil if the key holds another type or was just removed.
	Value []byte
	// ValueOmitted says that the string was too long for the page; Get reads it.
	ValueOmitted bool
}

// ScanOptions say what to list.
type ScanOptions struct {
	// Match is a pattern of Redis's glob style, such as user:*; empty for all keys.
	Match string
	// WithValues asks for the strings too.
	WithValues bool
	// PageSize is about how many keys are looked at in one call; 0 for the server's choice.
	PageSize uint32
}

// Scan yields keys. One that is there from the beginning to the end is yielded at least once. An error is the last pair.
func (c *Client) Scan(ctx context.Context, what ScanOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		request := &kvv1.ScanRequest{
			Database:   c.options.database,
			Match:      []byte(what.Match),
			WithValues: what.WithValues,
			PageSize:   what.PageSize,
		}
		for {
			response, err := invoke(ctx, c, true, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.ScanResponse, error) {
				return kv.Scan(ctx, request)
			})
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, found := range response.GetEntries() {
				if !yield(Entry{string(found.GetKey()), found.Value, found.GetValueOmitted()}, nil) {
					return
				}
			}
			if request.PageToken = response.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// newID returns the identity of one write, "" if writes get none.
func (c *Client) newID() string {
	if !c.options.requestIDs {
		return ""
	}
	var id [16]byte
	rand.Read(id[:]) // never fails: it ends the program instead
	return hex.EncodeToString(id[:])
}

type answer interface{ GetHeader() *kvv1.ResponseHeader }

// invoke makes a call, as often as is safe.
func invoke[R answer](
	ctx context.Context, c *Client, runsOnce bool, call func(context.Context, kvv1.KVServiceClient) (R, error),
) (R, error) {
	attempts := newAttempts(&c.options, time.Now())
	for {
		var failure *Error
		address := c.find(ctx, attempts)
		if connection, err := c.connection(address); err != nil {
			failure = err
		} else {
			limited, cancel := context.WithTimeout(c.authorized(ctx), attempts.limit(time.Now()))
			response, err := call(limited, kvv1.NewKVServiceClient(connection))
			cancel()
			if err == nil {
				c.routes.answered(response.GetHeader())
				return response, nil
			}
			failure = errorOfCall(err)
		}
		if err := c.pause(ctx, attempts, address, failure, runsOnce); err != nil {
			var none R
			return none, err
		}
	}
}

// pause waits until the next attempt; it returns what to tell if there is none.
func (c *Client) pause(ctx context.Context, attempts *attempts, address string, failure *Error, runsOnce bool) error {
	told := attempts.told(failure)
	if ctx.Err() != nil {
		failure.cause, told.cause = context.Cause(ctx), context.Cause(ctx)
		return told
	}
	if address != "" && isNodeAtFault(failure) {
		c.routes.failed(address, time.Now())
	}
	pause, again := attempts.pauseAfter(failure, time.Now(), runsOnce)
	if !again {
		return told
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		failure.cause, told.cause = context.Cause(ctx), context.Cause(ctx)
		return told
	}
}

// find returns whom to ask: the leader, as far as anybody who answers knows it.
func (c *Client) find(ctx context.Context, attempts *attempts) string {
	if address := c.routes.chosen(); address != "" {
		return address
	}
	candidates := c.routes.candidates(time.Now())
	for _, address := range candidates {
		status, err := c.askStatus(ctx, address, attempts.probe(time.Now()))
		if err == nil {
			return c.routes.learned(address, status, time.Now())
		}
		if err.outcome == ErrRejected || ctx.Err() != nil {
			return address // the call itself will be told why
		}
		c.routes.failed(address, time.Now())
	}
	return candidates[0]
}

func (c *Client) askStatus(
	ctx context.Context, address string, limit time.Duration,
) (*clusterv1.StatusResponse, *Error) {
	connection, failure := c.connection(address)
	if failure != nil {
		return nil, failure
	}
	limited, cancel := context.WithTimeout(c.authorized(ctx), limit)
	defer cancel()
	status, err := clusterv1.NewClusterServiceClient(connection).Status(limited, &clusterv1.StatusRequest{})
	if err != nil {
		return nil, errorOfCall(err)
	}
	return status, nil
}

func (c *Client) authorized(ctx context.Context) context.Context {
	if c.options.password == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.options.password)
}

func (c *Client) connection(address string) (*grpc.ClientConn, *Error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.isClosed {
		return nil, &Error{Message: "the client is closed", outcome: ErrRejected}
	}
	if found := c.connections[address]; found != nil {
		return found, nil
	}
	// No proxy of the environment stands between, and a node that comes back is reached within a second.
	made, err := grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
	)
	if err != nil {
		return nil, &Error{Message: err.Error(), outcome: ErrRejected, cause: err}
	}
	c.connections[address] = made
	return made, nil
}
