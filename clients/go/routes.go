package redan

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redan-kv/redan/clients/go/clusterv1"
	"github.com/redan-kv/redan/clients/go/kvv1"
)

const (
	// avoidFor is about as long as a node needs to start anew, and longer than an election.
	avoidFor    = 2 * time.Second
	defaultPort = "7400"
)

// routes know the nodes: the leader is asked if it is known, for any other node has to ask it too. The addresses that the
// caller gave are never forgotten: those that the cluster tells may lead nowhere from here.
type routes struct {
	mutex   sync.Mutex
	given   []string
	members []string
	avoided map[string]time.Time
	target  string
	term    uint64
}

func newRoutes(addresses []string) (*routes, error) {
	found := &routes{avoided: map[string]time.Time{}}
	for _, address := range addresses {
		for _, one := range strings.Split(address, ",") {
			one, err := withPort(strings.TrimSpace(one))
			if err != nil {
				return nil, err
			}
			if !slices.Contains(found.given, one) {
				found.given = append(found.given, one)
			}
		}
	}
	if len(found.given) == 0 {
		return nil, fmt.Errorf("redan: at least one address is needed")
	}
	return found, nil
}

func withPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port, err = net.SplitHostPort(address + ":" + defaultPort)
	}
	if err != nil || host == "" || port == "" {
		return "", fmt.Errorf("redan: %q is no address; host:port is one, [::1]:7400 too", address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "0" {
		return "", fmt.Errorf("redan: %q has no port that can be called", address)
	}
	return net.JoinHostPort(host, port), nil
}

// chosen returns whom to ask, "" if it has to be found out first.
func (r *routes) chosen() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.target
}

// candidates returns whom to ask who leads, in order: those that failed of late come last, the latest at the end.
func (r *routes) candidates(now time.Time) []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	known := slices.Clone(r.given)
	for _, member := range r.members {
		if !slices.Contains(known, member) {
			known = append(known, member)
		}
	}
	until := func(address string) time.Time {
		if end := r.avoided[address]; end.After(now) {
			return end
		}
		return time.Time{}
	}
	slices.SortStableFunc(known, func(a, b string) int { return until(a).Compare(until(b)) })
	return known
}

// failed notes that a node should not be asked next.
func (r *routes) failed(address string, now time.Time) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.avoided[address] = now.Add(avoidFor)
	if r.target == address {
		r.target = ""
	}
}

// learned notes what the node at an address said of the cluster, and returns whom to ask.
func (r *routes) learned(address string, status *clusterv1.StatusResponse, now time.Time) string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.members = nil
	r.term = max(r.term, status.GetTerm())
	r.target = address
	for _, member := range status.GetMembers() {
		at := member.GetGrpcAddress()
		if at == "" {
			continue
		}
		r.members = append(r.members, at)
		if member.GetLeader() && status.GetNode() != status.GetLeader() && !r.avoided[at].After(now) {
			r.target = at
		}
	}
	return r.target
}

// answered notes a response: in a new term there may be a new leader, which has to be found out.
func (r *routes) answered(header *kvv1.ResponseHeader) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if header.GetTerm() > r.term {
		r.term, r.target = header.GetTerm(), ""
	}
}
