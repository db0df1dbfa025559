package redan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/redan-kv/redan/clients/go/kvv1"
)

// dataCommands read, or a request id makes them run once. Others are about one node, such as SHUTDOWN: they are never
// repeated when it is not known whether they were done.
var dataCommands = func() map[string]bool {
	const names = `
		APPEND BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS COPY DBSIZE DECR DECRBY DEL DUMP ECHO EXISTS EXPIRE EXPIREAT
		EXPIRETIME FLUSHALL FLUSHDB GET GETBIT GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT KEYS LCS MGET MOVE
		MSET MSETNX OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PING PSETEX PTTL RANDOMKEY RENAME RENAMENX RESTORE
		SCAN SET SETBIT SETEX SETNX SETRANGE STRLEN SUBSTR SWAPDB TIME TOUCH TTL TYPE UNLINK`
	found := map[string]bool{}
	for _, name := range strings.Fields(names) {
		found[name] = true
	}
	return found
}()

func isDataCommand(name []byte) bool { return dataCommands[strings.ToUpper(string(name))] }

// Pair is one pair of a reply that is a map.
type Pair struct{ Key, Value any }

// arguments returns the bytes of the arguments of a command.
func arguments(args []any) ([][]byte, error) {
	words := make([][]byte, len(args))
	for position, arg := range args {
		switch arg := arg.(type) {
		case string:
			words[position] = []byte(arg)
		case []byte:
			words[position] = arg
		case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
			words[position] = fmt.Append(nil, arg)
		case float32:
			words[position] = strconv.AppendFloat(nil, float64(arg), 'g', -1, 32)
		case float64:
			words[position] = strconv.AppendFloat(nil, arg, 'g', -1, 64)
		default:
			return nil, fmt.Errorf("redan: argument %d is %T, and neither string, []byte nor a number", position, arg)
		}
	}
	return words, nil
}

// valueOf returns a reply as Go has it; an error is a *Error.
func valueOf(value *kvv1.Value) any {
	switch kind := value.GetKind().(type) {
	case *kvv1.Value_Status:
		return kind.Status
	case *kvv1.Value_Bulk:
		return kind.Bulk
	case *kvv1.Value_Integer:
		return kind.Integer
	case *kvv1.Value_Double:
		return kind.Double
	case *kvv1.Value_Boolean:
		return kind.Boolean
	case *kvv1.Value_Array:
		return valuesOf(kind.Array.GetValues())
	case *kvv1.Value_Set:
		return valuesOf(kind.Set.GetValues())
	case *kvv1.Value_Map:
		pairs := make([]Pair, len(kind.Map.GetEntries()))
		for position, entry := range kind.Map.GetEntries() {
			pairs[position] = Pair{valueOf(entry.GetKey()), valueOf(entry.GetValue())}
		}
		return pairs
	case *kvv1.Value_Error:
		return errorOfCommand(kind.Error)
	case *kvv1.Value_Verbatim:
		return kind.Verbatim.GetText()
	}
	return nil
}

func valuesOf(values []*kvv1.Value) []any {
	all := make([]any, len(values))
	for position, value := range values {
		all[position] = valueOf(value)
	}
	return all
}
