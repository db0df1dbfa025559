package redan

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/redan-kv/redan/clients/go/kvv1"
)

// What may be concluded from an error; errors.Is tells.
var (
	// ErrRejected: the same request fails again.
	ErrRejected = errors.New("rejected")
	// ErrNotApplied: nothing was done, and nothing will happen later.
	ErrNotApplied = errors.New("not applied")
	// ErrOutcomeUnknown: a write may or may not be applied, or may still be.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrUnauthenticated: the password is wrong or missing. Such an error is ErrRejected too.
	ErrUnauthenticated = errors.New("unauthenticated")
)

const domain = "redan"

// Error is what a call or a command failed with.
type Error struct {
	// Code is the canonical status code.
	Code codes.Code
	// Reason says why, such as WRONG_TYPE; empty if no node said so.
	Reason string
	// Message is for people.
	Message string
	// Metadata is what else the node said, such as prefix, the first word of the error that a Redis client would see.
	Metadata map[string]string

	outcome error
	cause   error
}

// Error returns the text.
func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("redan: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("redan: %s: %s", e.Reason, e.Message)
}

// Is tells whether the error allows a conclusion: ErrRejected, ErrNotApplied, ErrOutcomeUnknown, ErrUnauthenticated.
func (e *Error) Is(target error) bool {
	return target == e.outcome || (target == ErrUnauthenticated && e.Code == codes.Unauthenticated)
}

// Unwrap returns the error of the context that ended the call, if one did.
func (e *Error) Unwrap() error { return e.cause }

// errorOfCall returns what the error of a call says; what is not known to be harmless has an unknown outcome.
func errorOfCall(err error) *Error {
	said := status.Convert(err)
	found := &Error{Code: said.Code(), Message: said.Message(), outcome: ErrOutcomeUnknown}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		found.cause = err
	}
	for _, detail := range said.Details() {
		info, is := detail.(*errdetails.ErrorInfo)
		if !is || info.GetDomain() != domain {
			continue
		}
		found.Reason, found.Metadata = info.GetReason(), info.GetMetadata()
		switch info.GetMetadata()["outcome"] {
		case "rejected":
			found.outcome = ErrRejected
		case "not_applied":
			found.outcome = ErrNotApplied
		case "":
			if found.Code == codes.FailedPrecondition { // ClusterService refuses so
				found.outcome = ErrRejected
			}
		}
	}
	switch found.Code {
	case codes.Unauthenticated:
		found.outcome = ErrRejected
	case codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied, codes.NotFound:
		if found.Reason == "" {
			found.outcome = ErrRejected
		}
	}
	return found
}

// errorOfCommand returns what one command of a pipeline was answered with.
func errorOfCommand(failed *kvv1.CommandError) *Error {
	found := &Error{
		Code:     codes.Code(failed.GetCode()), //nolint:gosec // a canonical code
		Reason:   failed.GetReason(),
		Message:  failed.GetMessage(),
		Metadata: map[string]string{"prefix": failed.GetPrefix()},
		outcome:  ErrOutcomeUnknown,
	}
	switch failed.GetOutcome() {
	case kvv1.Outcome_OUTCOME_REJECTED:
		found.outcome = ErrRejected
	case kvv1.Outcome_OUTCOME_NOT_APPLIED:
		found.outcome = ErrNotApplied
	}
	return found
}
