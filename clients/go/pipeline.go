package redan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/redan-kv/redan/clients/go/kvv1"
)

const (
	// commandsPerMessage is where the server's own cost of a message no longer shows; it takes 10,000.
	commandsPerMessage = 500
	bytesPerMessage    = 512 << 10
	// messagesPerStream is what one attempt has time for also on a slow machine; the next stream follows at once.
	messagesPerStream = 20
)

// Pipeline collects commands that are sent together, by far the fastest way in. It is not atomic. Its commands run in
// order; one that the cluster refused or lost is sent again, and may then run after those behind it.
type Pipeline struct {
	client *Client
	queued []queued
	err    error
}

type queued struct {
	command  *kvv1.Command
	runsOnce bool
}

// Result is what one command of a pipeline was answered with.
type Result struct {
	// Value is the reply, as Execute returns it.
	Value any
	// Err is why the command failed.
	Err error
}

// Bytes returns a reply that is a string, and whether there is one.
func (r Result) Bytes() ([]byte, bool, error) {
	if r.Err != nil || r.Value == nil {
		return nil, false, r.Err
	}
	found, is := r.Value.([]byte)
	if !is {
		return nil, false, fmt.Errorf("redan: the reply is %T and no string", r.Value)
	}
	return found, true, nil
}

// Int returns a reply that is an integer.
func (r Result) Int() (int64, error) {
	if r.Err != nil {
		return 0, r.Err
	}
	found, is := r.Value.(int64)
	if !is {
		return 0, fmt.Errorf("redan: the reply is %T and no integer", r.Value)
	}
	return found, nil
}

// Pipeline returns an empty pipeline. It is used by one goroutine at a time.
func (c *Client) Pipeline() *Pipeline { return &Pipeline{client: c} }

// Len returns how many commands wait to be sent.
func (p *Pipeline) Len() int { return len(p.queued) }

// Get reads a string.
func (p *Pipeline) Get(key string) *Pipeline { return p.Command("GET", key) }

// Set stores a string.
func (p *Pipeline) Set(key string, value []byte) *Pipeline { return p.Command("SET", key, value) }

// SetTTL stores a string for a while.
func (p *Pipeline) SetTTL(key string, value []byte, after time.Duration) *Pipeline {
	return p.Command("SET", key, value, "PX", int64((after+time.Millisecond-1)/time.Millisecond))
}

// Delete removes keys.
func (p *Pipeline) Delete(keys ...string) *Pipeline {
	args := []any{"DEL"}
	for _, key := range keys {
		args = append(args, key)
	}
	return p.Command(args...)
}

// Increment adds to an integer.
func (p *Pipeline) Increment(key string, delta int64) *Pipeline {
	return p.Command("INCRBY", key, delta)
}

// Command adds any command of the Redis API; arguments are those of Execute.
func (p *Pipeline) Command(args ...any) *Pipeline {
	words, err := arguments(args)
	if err == nil && len(words) == 0 {
		err = errors.New("redan: a command has at least a name")
	}
	if err != nil {
		p.err = errors.Join(p.err, err)
		return p
	}
	one := queued{command: &kvv1.Command{Args: words}}
	if one.runsOnce = p.client.options.requestIDs && isDataCommand(words[0]); one.runsOnce {
		one.command.RequestId = p.client.newID()
	}
	p.queued = append(p.queued, one)
	return p
}

// Execute sends all commands and returns one result for each, in order. The error is that of the first command that
// failed, if one did; the results say which. The pipeline is empty afterwards.
func (p *Pipeline) Execute(ctx context.Context) ([]Result, error) {
	all, err := p.queued, p.err
	p.queued, p.err = nil, nil
	if err != nil {
		return nil, err
	}
	sending := &batches{
		queued: all, results: make([]Result, len(all)), waiting: make([]int, len(all)), unknown: map[int]*Error{},
	}
	for position := range all {
		sending.waiting[position] = position
	}
	c := p.client
	attempts := newAttempts(&c.options, time.Now())
	for len(sending.waiting) > 0 {
		before := len(sending.waiting)
		address := c.find(ctx, attempts)
		failure := c.send(ctx, address, sending, attempts.limit(time.Now()))
		if len(sending.waiting) < before {
			attempts = newAttempts(&c.options, time.Now()) // the time limit is one for going on
		}
		if failure != nil && c.pause(ctx, attempts, address, failure, sending.runsOnce()) != nil {
			sending.gaveUp(failure)
			break
		}
	}
	for _, result := range sending.results {
		if result.Err != nil {
			return sending.results, result.Err
		}
	}
	return sending.results, nil
}

// batches are commands on their way.
type batches struct {
	queued  []queued
	results []Result
	// waiting are the positions of the commands to send, in order.
	waiting []int
	// unknown is the last unknown outcome of each command that had one.
	unknown map[int]*Error
}

// runsOnce tells whether all that has no result may be sent again.
func (b *batches) runsOnce() bool {
	for _, position := range b.waiting {
		if !b.queued[position].runsOnce {
			return false
		}
	}
	return true
}

// messages returns the positions of the commands of each message of the next stream.
func (b *batches) messages() [][]int {
	var messages [][]int
	begin, size := 0, 0
	for at, position := range b.waiting {
		length := proto.Size(b.queued[position].command)
		if at > begin && (at-begin >= commandsPerMessage || size+length > bytesPerMessage) {
			messages, begin, size = append(messages, b.waiting[begin:at]), at, 0
			if len(messages) == messagesPerStream {
				return messages
			}
		}
		size += length
	}
	return append(messages, b.waiting[begin:])
}

// answered takes the results of one message; it returns the positions to send again, and why.
func (b *batches) answered(positions []int, response *kvv1.PipelineResponse) (again []int, why *Error) {
	for at, position := range positions {
		value := valueOf(response.GetValues()[at])
		failed, is := value.(*Error)
		if !is {
			b.results[position] = Result{Value: value}
			continue
		}
		b.failed(position, failed)
		if isSafe(failed, b.queued[position].runsOnce) {
			again, why = append(again, position), failed
		}
	}
	return again, why
}

// send sends a part of what waits over one stream; it returns why some of it has to be sent again, nil if nothing has.
func (c *Client) send(ctx context.Context, address string, b *batches, limit time.Duration) *Error {
	connection, failure := c.connection(address)
	if failure != nil {
		return failure // nothing was sent
	}
	limited, cancel := context.WithTimeout(c.authorized(ctx), limit)
	defer cancel()
	messages := b.messages()
	stream, err := kvv1.NewKVServiceClient(connection).Pipeline(limited)
	if err != nil {
		return b.broke(errorOfCall(err), messages)
	}
	go func() {
		for id, positions := range messages {
			request := &kvv1.PipelineRequest{BatchId: uint64(id), Database: c.options.database} //nolint:gosec // below 20
			for _, position := range positions {
				request.Commands = append(request.Commands, b.queued[position].command)
			}
			if stream.Send(request) != nil {
				return // Recv tells why
			}
		}
		_ = stream.CloseSend()
	}()
	var again []int
	var why *Error
	sent := 0
	for at, positions := range messages {
		response, err := stream.Recv()
		if err == nil && len(response.GetValues()) != len(positions) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			b.waiting = append(again, b.waiting[sent:]...)
			return b.broke(errorOfCall(err), messages[at:])
		}
		repeated, reason := b.answered(positions, response)
		again = append(again, repeated...)
		if reason != nil {
			why = reason
		}
		sent += len(positions)
	}
	b.waiting = append(again, b.waiting[sent:]...)
	return why
}

// failed notes what a command that was sent failed with.
func (b *batches) failed(position int, why *Error) {
	b.results[position] = Result{Err: afterUnknown(b.unknown[position], why)}
	if why.outcome == ErrOutcomeUnknown {
		b.unknown[position] = why
	}
}

// broke notes that a stream ended before these messages were answered.
func (b *batches) broke(failure *Error, messages [][]int) *Error {
	for _, positions := range messages {
		for _, position := range positions {
			b.failed(position, failure)
		}
	}
	return failure
}

// gaveUp notes that nothing will be sent any more: why is the result of what was never sent.
func (b *batches) gaveUp(why *Error) {
	for _, position := range b.waiting {
		if b.results[position].Err == nil {
			b.results[position] = Result{Err: why}
		}
	}
}
