package redan_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"testing"
	"time"

	redan "github.com/redan-kv/redan/clients/go"
)

// real returns a client of the cluster whose addresses are in REDAN_ADDRESSES, with an empty database.
func real(t *testing.T) *redan.Client {
	t.Helper()
	addresses := os.Getenv("REDAN_ADDRESSES")
	if addresses == "" {
		t.Skip("REDAN_ADDRESSES names no nodes")
	}
	client := clientOf(t, []string{addresses}, redan.WithDatabase(3))
	_, err := client.Execute(t.Context(), "FLUSHDB")
	check(t, err)
	return client
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, found, wanted any) {
	t.Helper()
	if !reflect.DeepEqual(found, wanted) {
		t.Fatalf("found %#v, wanted %#v", found, wanted)
	}
}

func TestStringsConditionsAndCountersOnRealNodes(t *testing.T) {
	client, ctx := real(t), t.Context()
	_, found, err := client.Get(ctx, "k")
	check(t, err)
	same(t, found, false)
	stored, err := client.Set(ctx, "k", []byte("v"), redan.IfPresent())
	check(t, err)
	same(t, stored, false)
	stored, err = client.Set(ctx, "k", []byte{0, 255}, redan.IfAbsent(), redan.TTL(1000*time.Second))
	check(t, err)
	same(t, stored, true)
	previous, found, err := client.Swap(ctx, "k", []byte("w"), redan.KeepTTL())
	check(t, err)
	same(t, []any{previous, found}, []any{[]byte{0, 255}, true})
	ttl, found, err := client.TTLOf(ctx, "k")
	check(t, err)
	if !found || ttl < 900*time.Second || ttl > 1000*time.Second {
		t.Fatal(ttl, found)
	}
	sum, err := client.Increment(ctx, "n", math.MinInt64)
	check(t, err)
	same(t, sum, int64(math.MinInt64))
	count, err := client.Exists(ctx, "k", "n", "none")
	check(t, err)
	same(t, count, uint64(2))
	count, err = client.Delete(ctx, "k", "none")
	check(t, err)
	same(t, count, uint64(1))
	_, err = client.Set(ctx, "text", []byte("a"))
	check(t, err)
	if _, err = client.Increment(ctx, "text", 1); !errors.Is(err, redan.ErrRejected) {
		t.Fatal(err)
	}
}

func TestDeadlinesOnRealNodes(t *testing.T) {
	client, ctx := real(t), t.Context()
	_, err := client.Set(ctx, "k", nil, redan.ExpireAt(time.Now().Add(time.Hour)))
	check(t, err)
	persisted, err := client.Persist(ctx, "k")
	check(t, err)
	ttl, found, err := client.TTLOf(ctx, "k")
	check(t, err)
	same(t, []any{persisted, ttl, found}, []any{true, redan.Forever, true})
	applied, err := client.Expire(ctx, "k", time.Minute)
	check(t, err)
	same(t, applied, true)
	applied, err = client.ExpireAt(ctx, "k", time.Now().Add(-time.Hour))
	check(t, err)
	same(t, applied, true)
	value, found, err := client.Get(ctx, "k")
	check(t, err)
	same(t, []any{value, found}, []any{[]byte(nil), false})
	_, found, err = client.TTLOf(ctx, "k")
	check(t, err)
	same(t, found, false)
}

func TestManyKeysScansAndPipelinesOnRealNodes(t *testing.T) {
	client, ctx := real(t), t.Context()
	entries := map[string][]byte{}
	for number := range 300 {
		entries[fmt.Sprintf("key:%d", number)] = fmt.Append(nil, number)
	}
	check(t, client.SetMany(ctx, entries))
	stored, err := client.SetManyIfAbsent(ctx, map[string][]byte{"key:1": nil, "other": nil})
	check(t, err)
	same(t, stored, false)
	values, err := client.GetMany(ctx, "key:7", "none")
	check(t, err)
	same(t, values, [][]byte{[]byte("7"), nil})
	found := map[string][]byte{}
	for entry, err := range client.Scan(ctx, redan.ScanOptions{Match: "key:*", WithValues: true, PageSize: 20}) {
		check(t, err)
		found[entry.Key] = entry.Value
	}
	same(t, found, entries)
	reply, err := client.Execute(ctx, "MGET", "key:1", []byte("none"))
	check(t, err)
	same(t, reply, []any{[]byte("1"), nil})
	pipeline := client.Pipeline().SetTTL("p", []byte("v"), time.Minute).Get("p").Get("none").Delete("p").Command("SET", "f", 1.5)
	results, err := pipeline.Increment("f", 1).Execute(ctx)
	if !errors.Is(err, redan.ErrRejected) || results[5].Err == nil {
		t.Fatal(err)
	}
	same(t, results[:5], []redan.Result{
		{Value: "OK"}, {Value: []byte("v")}, {Value: nil}, {Value: int64(1)}, {Value: "OK"},
	})
	status, err := client.Status(ctx)
	check(t, err)
	if status.GetLeader() == "" {
		t.Fatal(status)
	}
}
