package redan_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	redan "github.com/redan-kv/redan/clients/go"
	"github.com/redan-kv/redan/clients/go/clusterv1"
	"github.com/redan-kv/redan/clients/go/kvv1"
)

// node is a stand-in for a node: it answers as a test tells it.
type node struct {
	kvv1.UnimplementedKVServiceServer
	clusterv1.UnimplementedClusterServiceServer
	address string

	mutex    sync.Mutex
	ids      []string // request ids of the writes that came
	calls    int
	token    string
	failures []error // the answers to the first calls
	term     uint64
	status   func() *clusterv1.StatusResponse
	batches  [][]string // keys of the messages of pipelines
	values   [][]*kvv1.Value
}

func (n *node) next(ctx context.Context, id string) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.calls++
	n.ids = append(n.ids, id)
	if found, is := metadata.FromIncomingContext(ctx); is {
		n.token = append(found.Get("authorization"), "")[0]
	}
	if len(n.failures) == 0 {
		return nil
	}
	failure := n.failures[0]
	n.failures = n.failures[1:]
	return failure
}

func (n *node) Increment(ctx context.Context, request *kvv1.IncrementRequest) (*kvv1.IncrementResponse, error) {
	if err := n.next(ctx, request.GetRequestId()); err != nil {
		return nil, err
	}
	return &kvv1.IncrementResponse{Header: &kvv1.ResponseHeader{Term: n.term}, Value: 7}, nil
}

func (n *node) Get(ctx context.Context, _ *kvv1.GetRequest) (*kvv1.GetResponse, error) {
	if err := n.next(ctx, ""); err != nil {
		return nil, err
	}
	return &kvv1.GetResponse{Value: []byte("v")}, nil
}

func (n *node) Execute(ctx context.Context, request *kvv1.ExecuteRequest) (*kvv1.ExecuteResponse, error) {
	if err := n.next(ctx, request.GetRequestId()); err != nil {
		return nil, err
	}
	return &kvv1.ExecuteResponse{Value: &kvv1.Value{Kind: &kvv1.Value_Status{Status: "OK"}}}, nil
}

func (n *node) Status(context.Context, *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	return n.status(), nil
}

func (n *node) Pipeline(stream grpc.BidiStreamingServer[kvv1.PipelineRequest, kvv1.PipelineResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil
		}
		var keys []string
		for _, command := range request.GetCommands() {
			keys = append(keys, string(command.GetArgs()[1]))
			n.ids = append(n.ids, command.GetRequestId())
		}
		n.mutex.Lock()
		n.batches = append(n.batches, keys)
		n.calls++
		var failure error
		if len(n.failures) > 0 {
			failure, n.failures = n.failures[0], n.failures[1:]
		}
		values := make([]*kvv1.Value, len(keys))
		for at := range values {
			values[at] = &kvv1.Value{Kind: &kvv1.Value_Status{Status: "OK"}}
		}
		if failure == nil && len(n.values) > 0 {
			values, n.values = n.values[0], n.values[1:]
		}
		n.mutex.Unlock()
		if failure != nil {
			return failure
		}
		if err := stream.Send(&kvv1.PipelineResponse{BatchId: request.GetBatchId(), Values: values}); err != nil {
			return err
		}
	}
}

// serve starts a stand-in on a port that the kernel chooses.
func serve(t *testing.T) *node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	one := &node{address: listener.Addr().String()}
	one.status = func() *clusterv1.StatusResponse { return leading(one, one) }
	server := grpc.NewServer()
	kvv1.RegisterKVServiceServer(server, one)
	clusterv1.RegisterClusterServiceServer(server, one)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return one
}

// leading returns what a node says of a cluster that another one leads.
func leading(said, leader *node) *clusterv1.StatusResponse {
	member := func(n *node) *clusterv1.Member {
		return &clusterv1.Member{Name: n.address, GrpcAddress: n.address, Leader: n == leader}
	}
	return &clusterv1.StatusResponse{
		Node: said.address, Leader: leader.address, Term: 1, Members: []*clusterv1.Member{member(said), member(leader)},
	}
}

func clientOf(t *testing.T, addresses []string, options ...redan.Option) *redan.Client {
	t.Helper()
	quick := []redan.Option{
		redan.WithTimeout(90*time.Second, 30*time.Second), redan.WithPauses(time.Millisecond, 10*time.Millisecond),
	}
	client, err := redan.New(addresses, append(quick, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func refusal(code codes.Code, reason, outcome string) error {
	said, err := status.New(code, "because of "+reason).WithDetails(
		&errdetails.ErrorInfo{Reason: reason, Domain: "redan", Metadata: map[string]string{"outcome": outcome}})
	if err != nil {
		panic(err)
	}
	return said.Err()
}

var (
	noLeader    = refusal(codes.Unavailable, "NO_LEADER", "not_applied")
	overloaded  = refusal(codes.ResourceExhausted, "OVERLOADED", "not_applied")
	outOfMemory = refusal(codes.ResourceExhausted, "OUT_OF_MEMORY", "not_applied")
	lost        = refusal(codes.Aborted, "LEADERSHIP_LOST", "unknown")
	wrongType   = refusal(codes.FailedPrecondition, "WRONG_TYPE", "rejected")
	wrongToken  = refusal(codes.Unauthenticated, "WRONG_PASSWORD", "rejected")
	connection  = status.Error(codes.Unavailable, "connection reset")
)

func TestAWriteIsRepeatedWithTheSameRequestID(t *testing.T) {
	for name, failure := range map[string]error{
		"no leader": noLeader, "overloaded": overloaded, "leadership lost": lost, "connection lost": connection,
	} {
		t.Run(name, func(t *testing.T) {
			one := serve(t)
			one.failures = []error{failure, failure}
			value, err := clientOf(t, []string{one.address}).Increment(t.Context(), "n", 1)
			if err != nil || value != 7 {
				t.Fatal(value, err)
			}
			if len(one.ids) != 3 || one.ids[0] == "" || one.ids[0] != one.ids[1] || one.ids[1] != one.ids[2] {
				t.Fatal(one.ids)
			}
		})
	}
}

func TestTwoWritesHaveTwoRequestIDs(t *testing.T) {
	one := serve(t)
	client := clientOf(t, []string{one.address})
	for range 2 {
		if _, err := client.Increment(t.Context(), "n", 1); err != nil {
			t.Fatal(err)
		}
	}
	if one.ids[0] == one.ids[1] {
		t.Fatal(one.ids)
	}
}

func TestWithoutARequestIDOnlyWhatWasNotAppliedIsRepeated(t *testing.T) {
	one := serve(t)
	one.failures = []error{noLeader, lost}
	_, err := clientOf(t, []string{one.address}, redan.WithoutRequestIDs()).Increment(t.Context(), "n", 1)
	if !errors.Is(err, redan.ErrOutcomeUnknown) || !slices.Equal(one.ids, []string{"", ""}) {
		t.Fatal(err, one.ids)
	}
}

func TestAReadIsRepeatedWhateverBecameOfIt(t *testing.T) {
	one := serve(t)
	one.failures = []error{lost, connection}
	value, found, err := clientOf(t, []string{one.address}, redan.WithoutRequestIDs()).Get(t.Context(), "k")
	if err != nil || !found || string(value) != "v" || one.calls != 3 {
		t.Fatal(value, found, err, one.calls)
	}
}

func TestWhatWillNotPassIsNotRepeated(t *testing.T) {
	for name, test := range map[string]struct{ failure, kind error }{
		"rejected":         {wrongType, redan.ErrRejected},
		"wrong password":   {wrongToken, redan.ErrUnauthenticated},
		"out of memory":    {outOfMemory, redan.ErrNotApplied},
		"reply not kept":   {refusal(codes.ResourceExhausted, "REPLY_NOT_KEPT", "unknown"), redan.ErrOutcomeUnknown},
		"no such call":     {status.Error(codes.Unimplemented, ""), redan.ErrRejected},
		"message too long": {status.Error(codes.ResourceExhausted, ""), redan.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			one := serve(t)
			one.failures = []error{test.failure}
			_, err := clientOf(t, []string{one.address}).Increment(t.Context(), "n", 1)
			if !errors.Is(err, test.kind) || one.calls != 1 {
				t.Fatal(err, one.calls)
			}
		})
	}
}

func TestAWriteThatMayHaveBeenAppliedIsNotMadeUndoneByARefusedRepetition(t *testing.T) {
	for name, test := range map[string]struct{ refused, kind error }{
		"out of memory":  {outOfMemory, redan.ErrOutcomeUnknown},
		"rejected":       {refusal(codes.InvalidArgument, "INVALID_REQUEST", "rejected"), redan.ErrOutcomeUnknown},
		"wrong password": {wrongToken, redan.ErrOutcomeUnknown},
		"first answer":   {wrongType, redan.ErrRejected},
	} {
		t.Run(name, func(t *testing.T) {
			one := serve(t)
			one.failures = []error{lost, noLeader, test.refused}
			_, err := clientOf(t, []string{one.address}).Increment(t.Context(), "n", 1)
			if !errors.Is(err, test.kind) || errors.Is(err, redan.ErrNotApplied) || one.calls != 3 {
				t.Fatal(err, one.calls)
			}
			if said := status.Convert(test.refused).Message(); !strings.Contains(err.Error(), said) {
				t.Fatal(err, said)
			}
		})
	}
}

func TestAWriteThatMayHaveBeenAppliedIsNotMadeUndoneByGivingUp(t *testing.T) {
	one := serve(t)
	one.failures = append([]error{lost}, slices.Repeat([]error{noLeader}, 10_000)...)
	client := clientOf(t, []string{one.address}, redan.WithTimeout(2*time.Second, time.Second))
	if _, err := client.Increment(t.Context(), "n", 1); !errors.Is(err, redan.ErrOutcomeUnknown) {
		t.Fatal(err)
	}
}

func TestACommandAboutOneNodeIsNotRepeatedWhenItsOutcomeIsUnknown(t *testing.T) {
	for name, calls := range map[string]int{"GET": 2, "incr": 2, "SHUTDOWN": 1, "CONFIG": 1} {
		one := serve(t)
		one.failures = []error{connection}
		_, err := clientOf(t, []string{one.address}).Execute(t.Context(), name, "x")
		if (err == nil) != (calls == 2) || one.calls != calls {
			t.Fatal(name, err, one.calls)
		}
	}
}

func TestACallEndsWithinItsTimeLimitWithTheLastError(t *testing.T) {
	one := serve(t)
	one.failures = slices.Repeat([]error{noLeader}, 10_000)
	client := clientOf(t, []string{one.address}, redan.WithTimeout(2*time.Second, time.Second))
	_, err := client.Increment(t.Context(), "n", 1)
	var failure *redan.Error
	if !errors.As(err, &failure) || one.calls < 1 {
		t.Fatal(err, one.calls)
	}
	// The time limit may end the last attempt while it waits for its answer.
	if failure.Reason != "NO_LEADER" && failure.Code != codes.DeadlineExceeded {
		t.Fatal(err)
	}
}

func TestAContextThatIsCancelledEndsACall(t *testing.T) {
	one := serve(t)
	one.failures = slices.Repeat([]error{noLeader}, 100_000)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	stop := time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	defer stop.Stop()
	_, err := clientOf(t, []string{one.address}).Increment(ctx, "n", 1)
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

func TestTheLeaderIsAskedAndNotTheNodeThatNamesIt(t *testing.T) {
	one, leader := serve(t), serve(t)
	one.status = func() *clusterv1.StatusResponse { return leading(one, leader) }
	if _, err := clientOf(t, []string{one.address}).Increment(t.Context(), "n", 1); err != nil {
		t.Fatal(err)
	}
	if one.calls != 0 || leader.calls != 1 {
		t.Fatal(one.calls, leader.calls)
	}
}

func TestANewTermMakesTheClientLookForTheLeaderAgain(t *testing.T) {
	one, next := serve(t), serve(t)
	client := clientOf(t, []string{one.address})
	one.term = 2
	if _, err := client.Increment(t.Context(), "n", 1); err != nil {
		t.Fatal(err)
	}
	one.status = func() *clusterv1.StatusResponse { return leading(one, next) }
	if _, err := client.Increment(t.Context(), "n", 1); err != nil || next.calls != 1 {
		t.Fatal(err, next.calls)
	}
}

func TestANodeThatFailsIsLeftForAnotherOne(t *testing.T) {
	one, other := serve(t), serve(t)
	one.failures = []error{refusal(codes.Unavailable, "SHUTTING_DOWN", "not_applied")}
	other.status = func() *clusterv1.StatusResponse { return leading(other, one) }
	client := clientOf(t, []string{"127.0.0.1:1", one.address, other.address})
	if _, err := client.Increment(t.Context(), "n", 1); err != nil {
		t.Fatal(err)
	}
	if one.calls < 1 || other.calls != 1 { // after some time the first one may be asked again
		t.Fatal(one.calls, other.calls)
	}
}

func TestThePasswordGoesWithEveryCall(t *testing.T) {
	one := serve(t)
	client := clientOf(t, []string{one.address}, redan.WithPassword("secret"))
	if _, err := client.Increment(t.Context(), "n", 1); err != nil || one.token != "Bearer secret" {
		t.Fatal(err, one.token)
	}
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for _, address := range []string{"", "nowhere:0", "a:b:c", ":7400", "::1"} {
		if _, err := redan.New([]string{address}); err == nil {
			t.Error(address)
		}
	}
	if _, err := redan.New(nil); err == nil {
		t.Error("no address")
	}
	for _, password := range []string{"grün", "se\ncret", "se\x01cret"} {
		_, err := redan.New([]string{"h:1"}, redan.WithPassword(password))
		if err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%q: %v", password, err)
		}
	}
	if _, err := redan.New([]string{"[::1]:7400", "host"}); err != nil {
		t.Error(err)
	}
}

func commandError(reason string, outcome kvv1.Outcome) *kvv1.Value {
	return &kvv1.Value{Kind: &kvv1.Value_Error{Error: &kvv1.CommandError{Reason: reason, Outcome: outcome}}}
}

func TestOnlyTheCommandsThatTheClusterRefusedOrLostAreSentAgain(t *testing.T) {
	one := serve(t)
	ok := &kvv1.Value{Kind: &kvv1.Value_Status{Status: "OK"}}
	one.values = [][]*kvv1.Value{{
		ok,
		commandError("NO_LEADER", kvv1.Outcome_OUTCOME_NOT_APPLIED),
		commandError("WRONG_TYPE", kvv1.Outcome_OUTCOME_REJECTED),
		commandError("LEADERSHIP_LOST", kvv1.Outcome_OUTCOME_UNKNOWN),
	}}
	pipeline := clientOf(t, []string{one.address}).Pipeline()
	for _, key := range []string{"a", "b", "c", "d"} {
		pipeline.Set(key, nil)
	}
	results, err := pipeline.Execute(t.Context())
	if !errors.Is(err, redan.ErrRejected) || !errors.Is(results[2].Err, redan.ErrRejected) {
		t.Fatal(err, results)
	}
	if results[0].Value != "OK" || results[1].Value != "OK" || results[3].Value != "OK" {
		t.Fatal(results)
	}
	if !slices.Equal(one.batches[1], []string{"b", "d"}) || one.ids[1] != one.ids[4] || one.ids[3] != one.ids[5] {
		t.Fatal(one.batches, one.ids)
	}
}

func TestWhatAStreamDidNotAnswerIsSentAgainInOrder(t *testing.T) {
	one := serve(t)
	one.failures = []error{nil, connection}
	pipeline := clientOf(t, []string{one.address}).Pipeline()
	const count = 12_345 // more than one stream carries
	var keys []string
	for number := range count {
		keys = append(keys, string(rune('a'+number%26)))
		pipeline.Set(keys[number], nil)
	}
	results, err := pipeline.Execute(t.Context())
	if err != nil || len(results) != count || pipeline.Len() != 0 {
		t.Fatal(len(results), err)
	}
	var sent []string
	for at, batch := range one.batches {
		if at != 1 { // the message that was lost
			sent = append(sent, batch...)
		}
	}
	if !slices.Equal(sent, keys) || !slices.Equal(one.batches[1], one.batches[2]) {
		t.Fatal(len(sent))
	}
}

func TestWithoutRequestIDsALostStreamIsAnErrorForEachCommandWithoutAnAnswer(t *testing.T) {
	one := serve(t)
	one.failures = []error{connection}
	client := clientOf(t, []string{one.address}, redan.WithoutRequestIDs())
	results, err := client.Pipeline().Increment("a", 1).Increment("b", 1).Execute(t.Context())
	if !errors.Is(err, redan.ErrOutcomeUnknown) || !errors.Is(results[1].Err, redan.ErrOutcomeUnknown) || one.calls != 1 {
		t.Fatal(results, err)
	}
}

func TestACommandThatMayHaveBeenAppliedIsNotMadeUndoneByARefusedRepetition(t *testing.T) {
	one := serve(t)
	lost := commandError("LEADERSHIP_LOST", kvv1.Outcome_OUTCOME_UNKNOWN)
	refused := commandError("OUT_OF_MEMORY", kvv1.Outcome_OUTCOME_NOT_APPLIED)
	wrong := commandError("WRONG_TYPE", kvv1.Outcome_OUTCOME_REJECTED)
	one.values = [][]*kvv1.Value{
		{commandError("NO_LEADER", kvv1.Outcome_OUTCOME_NOT_APPLIED), lost, lost},
		{refused, refused, wrong},
	}
	pipeline := clientOf(t, []string{one.address}).Pipeline()
	results, _ := pipeline.Increment("a", 1).Increment("b", 1).Increment("c", 1).Execute(t.Context())
	for at, kind := range []error{redan.ErrNotApplied, redan.ErrOutcomeUnknown, redan.ErrRejected} {
		if !errors.Is(results[at].Err, kind) {
			t.Fatal(at, results[at])
		}
	}
	if !strings.Contains(results[1].Err.Error(), "OUT_OF_MEMORY") {
		t.Fatal(results[1])
	}
}

func TestTheCommandsOfALostMessageAreNotMadeUndoneByARefusedRepetition(t *testing.T) {
	one := serve(t)
	one.failures = []error{connection}
	refused := commandError("OUT_OF_MEMORY", kvv1.Outcome_OUTCOME_NOT_APPLIED)
	one.values = [][]*kvv1.Value{{refused, refused}}
	results, _ := clientOf(t, []string{one.address}).Pipeline().Increment("a", 1).Increment("b", 1).Execute(t.Context())
	for at, result := range results {
		if !errors.Is(result.Err, redan.ErrOutcomeUnknown) {
			t.Fatal(at, result)
		}
	}
	if one.calls != 2 {
		t.Fatal(one.calls)
	}
}

func TestWhatWasNeverSentHasTheErrorForWhichTheClientGaveUp(t *testing.T) {
	one := serve(t)
	pipeline := clientOf(t, []string{one.address}).Pipeline()
	const count = 10_000 // what one stream carries
	for range count {
		pipeline.Increment("n", 1)
	}
	for range count / 500 { // messages
		lost := commandError("LEADERSHIP_LOST", kvv1.Outcome_OUTCOME_UNKNOWN)
		one.values = append(one.values, slices.Repeat([]*kvv1.Value{lost}, 500))
	}
	results, err := pipeline.Command("CONFIG", "RESETSTAT").Execute(t.Context()) // never sent, and not repeatable
	if len(results) != count+1 || !errors.Is(err, redan.ErrOutcomeUnknown) || one.calls != count/500 {
		t.Fatal(len(results), err, one.calls)
	}
	for at, result := range results {
		if !errors.Is(result.Err, redan.ErrOutcomeUnknown) {
			t.Fatal(at, result)
		}
	}
}

func TestAnArgumentThatIsNoTextIsRefusedBeforeAnybodyIsAsked(t *testing.T) {
	one := serve(t)
	client := clientOf(t, []string{one.address})
	if _, err := client.Execute(t.Context(), "SET", "k", true); err == nil || one.calls != 0 {
		t.Fatal(err, one.calls)
	}
	if _, err := client.Pipeline().Command("SET", "k", nil).Execute(t.Context()); err == nil {
		t.Fatal("no error")
	}
}
