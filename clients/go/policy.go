package redan

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
)

// mayPass tells whether the same request may fare better a little later.
func mayPass(err *Error) bool {
	switch err.Reason {
	case "OUT_OF_MEMORY": // does not pass by itself
		return false
	case "REPLY_NOT_KEPT": // the write was done, and its long reply is gone
		return false
	}
	switch err.outcome {
	case ErrNotApplied:
		return true
	case ErrOutcomeUnknown:
		return err.Reason != "" || lostCall(err.Code)
	}
	return false
}

// isSafe tells whether a request that failed may be repeated. runsOnce says that twice is the same as once: a read, or a
// write with a request id, which the cluster runs once however often it comes.
func isSafe(err *Error, runsOnce bool) bool {
	return mayPass(err) && (runsOnce || err.outcome == ErrNotApplied)
}

// isFirstAnswer tells whether an error is one that only the command itself answers, when it runs. The cluster remembers it
// for the request id: so the first attempt came to the same. Any other refusal may precede the look at the request id, and
// tells nothing of the first attempt.
func isFirstAnswer(err *Error) bool {
	return err.Reason == "WRONG_TYPE" || err.Reason == "KEY_EXISTS"
}

// afterUnknown returns what to tell of a request that failed, after an attempt whose outcome is unknown, nil if there was
// none.
func afterUnknown(unknown, err *Error) *Error {
	if unknown == nil || err.outcome == ErrOutcomeUnknown || isFirstAnswer(err) {
		return err
	}
	said := err.Reason
	if said == "" {
		said = err.Code.String()
	}
	return &Error{
		Code:     unknown.Code,
		Reason:   unknown.Reason,
		Message:  fmt.Sprintf("%s; it was repeated, and failed: %s: %s", unknown.Message, said, err.Message),
		Metadata: unknown.Metadata,
		outcome:  ErrOutcomeUnknown,
		cause:    err.cause,
	}
}

// isNodeAtFault tells whether another node should be asked next.
func isNodeAtFault(err *Error) bool {
	switch err.Reason {
	case "NO_LEADER", "LOADING", "SHUTTING_DOWN", "SESSION_ENDED", "NOT_LEADER":
		return true
	case "":
		return lostCall(err.Code)
	}
	return false
}

// lostCall tells whether a call without details ended because the node, or the way to it, broke.
func lostCall(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// attempts are those of one call, within its time limit.
type attempts struct {
	options *options
	ends    time.Time
	failed  int
	chance  func() float64
	// unknown is what the last attempt of unknown outcome failed with.
	unknown *Error
}

func newAttempts(options *options, now time.Time) *attempts {
	return &attempts{options: options, ends: now.Add(options.timeout), chance: rand.Float64}
}

// limit returns how long the attempt that begins now may take.
func (a *attempts) limit(now time.Time) time.Duration {
	return max(time.Millisecond, min(a.options.attemptTimeout, a.ends.Sub(now)))
}

// probe returns how long a node that is asked now gets to say who leads.
func (a *attempts) probe(now time.Time) time.Duration {
	return min(a.options.attemptTimeout/3, a.limit(now))
}

// told returns what to tell of an attempt that failed, if it is the last one.
func (a *attempts) told(err *Error) *Error {
	told := afterUnknown(a.unknown, err)
	if err.outcome == ErrOutcomeUnknown {
		a.unknown = err
	}
	return told
}

// pauseAfter returns how long to wait before the next attempt, and whether there is one. The pause is random, up to a
// bound that doubles and has a limit ("full jitter").
func (a *attempts) pauseAfter(err *Error, now time.Time, runsOnce bool) (time.Duration, bool) {
	if !isSafe(err, runsOnce) {
		return 0, false
	}
	most := min(a.options.longestPause, a.options.firstPause<<min(a.failed, 16))
	a.failed++
	pause := time.Duration(a.chance() * float64(most))
	return pause, now.Add(pause).Before(a.ends)
}
