// Example is the program of README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	redan "github.com/redan-kv/redan/clients/go"
)

func main() {
	ctx := context.Background()
	client, err := redan.New([]string{"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	if _, err := client.Set(ctx, "greeting", []byte("hello"), redan.TTL(time.Hour)); err != nil {
		log.Fatal(err)
	}
	value, found, err := client.Get(ctx, "greeting")
	fmt.Printf("%s %v %v\n", value, found, err) // hello true <nil>

	sum, err := client.Increment(ctx, "visits", 1)
	fmt.Println(sum, err) // 1 <nil>

	results, err := client.Pipeline().Set("a", []byte("1")).Increment("a", 2).Get("a").Execute(ctx)
	fmt.Println(results[1].Value, err) // 3 <nil>

	for entry, err := range client.Scan(ctx, redan.ScanOptions{Match: "*i*"}) {
		fmt.Println(entry.Key, err)
	}
	reply, err := client.Execute(ctx, "APPEND", "greeting", "!") // any command of the Redis API
	fmt.Println(reply, err)                                      // 6 <nil>
}
