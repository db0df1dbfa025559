package redan

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/redan-kv/redan/clients/go/kvv1"
)

// SetOption says how a string is stored.
type SetOption func(*kvv1.SetRequest)

// TTL lets the key expire after a while.
func TTL(after time.Duration) SetOption {
	return func(r *kvv1.SetRequest) { r.Expiry = &kvv1.SetRequest_Ttl{Ttl: durationpb.New(after)} }
}

// ExpireAt lets the key expire at a time.
func ExpireAt(at time.Time) SetOption {
	return func(r *kvv1.SetRequest) { r.Expiry = &kvv1.SetRequest_ExpireAt{ExpireAt: timestamppb.New(at)} }
}

// KeepTTL lets the key expire when it would have without this write.
func KeepTTL() SetOption {
	return func(r *kvv1.SetRequest) { r.Expiry = &kvv1.SetRequest_KeepTtl{KeepTtl: true} }
}

// IfAbsent stores only if the key does not exist.
func IfAbsent() SetOption {
	return func(r *kvv1.SetRequest) { r.Condition = kvv1.SetCondition_SET_CONDITION_IF_ABSENT }
}

// IfPresent stores only if the key exists.
func IfPresent() SetOption {
	return func(r *kvv1.SetRequest) { r.Condition = kvv1.SetCondition_SET_CONDITION_IF_PRESENT }
}

// Get returns the string at a key, and whether there is one.
func (c *Client) Get(ctx context.Context, key string) ([]byte, bool, error) {
	request := &kvv1.GetRequest{Database: c.options.database, Key: []byte(key)}
	response, err := invoke(ctx, c, true, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.GetResponse, error) {
		return kv.Get(ctx, request)
	})
	if err != nil || response.Value == nil {
		return nil, false, err
	}
	return response.Value, true, nil
}

// Set stores a string and tells whether it was stored: not if a condition did not hold.
func (c *Client) Set(ctx context.Context, key string, value []byte, options ...SetOption) (bool, error) {
	response, err := c.set(ctx, c.setRequest(key, value, options))
	return response.GetApplied(), err
}

// Swap stores a string and returns the one that was there before, and whether there was one.
func (c *Client) Swap(ctx context.Context, key string, value []byte, options ...SetOption) ([]byte, bool, error) {
	request := c.setRequest(key, value, options)
	request.ReturnPrevious = true
	response, err := c.set(ctx, request)
	if err != nil || response.Previous == nil {
		return nil, false, err
	}
	return response.Previous, true, nil
}

func (c *Client) setRequest(key string, value []byte, options []SetOption) *kvv1.SetRequest {
	request := &kvv1.SetRequest{Database: c.options.database, Key: []byte(key), Value: value, RequestId: c.newID()}
	for _, option := range options {
		option(request)
	}
	return request
}

func (c *Client) set(ctx context.Context, request *kvv1.SetRequest) (*kvv1.SetResponse, error) {
	return invoke(ctx, c, c.options.requestIDs, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.SetResponse, error) {
		return kv.Set(ctx, request)
	})
}

// Delete removes keys in one step and returns how many there were.
func (c *Client) Delete(ctx context.Context, keys ...string) (uint64, error) {
	request := &kvv1.DeleteRequest{Database: c.options.database, Keys: encoded(keys), RequestId: c.newID()}
	response, err := invoke(ctx, c, c.options.requestIDs, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.DeleteResponse, error) {
		return kv.Delete(ctx, request)
	})
	return response.GetDeleted(), err
}

// Exists returns how many of the keys exist.
func (c *Client) Exists(ctx context.Context, keys ...string) (uint64, error) {
	request := &kvv1.ExistsRequest{Database: c.options.database, Keys: encoded(keys)}
	response, err := invoke(ctx, c, true, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.ExistsResponse, error) {
		return kv.Exists(ctx, request)
	})
	return response.GetCount(), err
}

// Increment adds to the integer at a key, 0 without one, and returns the sum.
func (c *Client) Increment(ctx context.Context, key string, delta int64) (int64, error) {
	request := &kvv1.IncrementRequest{
		Database: c.options.database, Key: []byte(key), Delta: &delta, RequestId: c.newID(),
	}
	response, err := invoke(ctx, c, c.options.requestIDs, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.IncrementResponse, error) {
		return kv.Increment(ctx, request)
	})
	return response.GetValue(), err
}

// Expire lets a key expire after a while and tells whether it will: not without the key.
func (c *Client) Expire(ctx context.Context, key string, after time.Duration) (bool, error) {
	return c.expire(ctx, &kvv1.ExpireRequest{Key: []byte(key), Expiry: &kvv1.ExpireRequest_Ttl{Ttl: durationpb.New(after)}})
}

// ExpireAt lets a key expire at a time and tells whether it will: not without the key.
func (c *Client) ExpireAt(ctx context.Context, key string, at time.Time) (bool, error) {
	expiry := &kvv1.ExpireRequest_ExpireAt{ExpireAt: timestamppb.New(at)}
	return c.expire(ctx, &kvv1.ExpireRequest{Key: []byte(key), Expiry: expiry})
}

// Persist takes the deadline of a key away and tells whether there was one.
func (c *Client) Persist(ctx context.Context, key string) (bool, error) {
	return c.expire(ctx, &kvv1.ExpireRequest{Key: []byte(key), Expiry: &kvv1.ExpireRequest_Persist{Persist: true}})
}

func (c *Client) expire(ctx context.Context, request *kvv1.ExpireRequest) (bool, error) {
	request.Database, request.RequestId = c.options.database, c.newID()
	response, err := invoke(ctx, c, c.options.requestIDs, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.ExpireResponse, error) {
		return kv.Expire(ctx, request)
	})
	return response.GetApplied(), err
}

// Forever is how long a key lives that has no deadline.
const Forever time.Duration = -1

// TTLOf returns how long a key still lives, Forever without a deadline, and whether it exists.
func (c *Client) TTLOf(ctx context.Context, key string) (time.Duration, bool, error) {
	request := &kvv1.TtlRequest{Database: c.options.database, Key: []byte(key)}
	response, err := invoke(ctx, c, true, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.TtlResponse, error) {
		return kv.Ttl(ctx, request)
	})
	if err != nil || !response.GetExists() {
		return 0, false, err
	}
	if response.Ttl == nil {
		return Forever, true, nil
	}
	return response.Ttl.AsDuration(), true, nil
}

// GetMany returns the strings at several keys, read in one step; nil where there is none.
func (c *Client) GetMany(ctx context.Context, keys ...string) ([][]byte, error) {
	request := &kvv1.MultiGetRequest{Database: c.options.database, Keys: encoded(keys)}
	response, err := invoke(ctx, c, true, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.MultiGetResponse, error) {
		return kv.MultiGet(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(response.GetLookups()))
	for position, lookup := range response.GetLookups() {
		values[position] = lookup.Value
	}
	return values, nil
}

// SetMany stores several strings in one step.
func (c *Client) SetMany(ctx context.Context, entries map[string][]byte) error {
	_, err := c.setMany(ctx, entries, false)
	return err
}

// SetManyIfAbsent stores several strings in one step if none of the keys exists, and tells whether it did.
func (c *Client) SetManyIfAbsent(ctx context.Context, entries map[string][]byte) (bool, error) {
	return c.setMany(ctx, entries, true)
}

func (c *Client) setMany(ctx context.Context, entries map[string][]byte, ifAllAbsent bool) (bool, error) {
	request := &kvv1.MultiSetRequest{Database: c.options.database, IfAllAbsent: ifAllAbsent, RequestId: c.newID()}
	for key, value := range entries {
		request.Entries = append(request.Entries, &kvv1.KeyValue{Key: []byte(key), Value: value})
	}
	response, err := invoke(ctx, c, c.options.requestIDs, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.MultiSetResponse, error) {
		return kv.MultiSet(ctx, request)
	})
	return response.GetApplied(), err
}

// Execute runs any command of the Redis API and returns its reply: nil, string (a status), []byte, int64, float64, bool,
// []any or []Pair. An argument is string, []byte, or any integer or float type.
func (c *Client) Execute(ctx context.Context, args ...any) (any, error) {
	words, err := arguments(args)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("redan: a command has at least a name")
	}
	request := &kvv1.ExecuteRequest{Database: c.options.database, Args: words}
	runsOnce := c.options.requestIDs && isDataCommand(words[0])
	if runsOnce {
		request.RequestId = c.newID()
	}
	response, err := invoke(ctx, c, runsOnce, func(ctx context.Context, kv kvv1.KVServiceClient) (*kvv1.ExecuteResponse, error) {
		return kv.Execute(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	return valueOf(response.GetValue()), nil
}

func encoded(keys []string) [][]byte {
	all := make([][]byte, len(keys))
	for position, key := range keys {
		all[position] = []byte(key)
	}
	return all
}
