// What a program with go-redis meets, against a real ring.
//
// Arguments: the ports of the nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const pipeline = 5000

var checks int

func check(what string, found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		fmt.Printf("%s: %#v instead of %#v\n", what, found, wanted)
		os.Exit(1)
	}
	checks++
}

func refused(what string, err error, words string) {
	check(what, err != nil && strings.Contains(err.Error(), words), true)
}

func until(holds func() bool) {
	for deadline := time.Now().Add(30 * time.Second); !holds(); {
		check("it comes true in time", time.Now().Before(deadline), true)
	}
}

func connect(port string, protocol int) *redis.Client {
	options := redis.Options{Addr: "127.0.0.1:" + port, Protocol: protocol, ClientName: "tester", MaxRetries: -1}
	return redis.NewClient(&options)
}

func commands(ports []string, protocol int) {
	ctx := context.Background()
	r, other := connect(ports[0], protocol), connect(ports[1], protocol)
	defer r.Close()
	defer other.Close()
	key := func(name any) string { return fmt.Sprintf("go-redis:%d:%v", protocol, name) }
	check("ping", r.Ping(ctx).Val(), "PONG")
	check("name", r.ClientGetName(ctx).Val(), "tester")
	check("set", r.Set(ctx, key("k"), "\x00\xff\r\n", 0).Err(), nil)
	check("get through another node", other.Get(ctx, key("k")).Val(), "\x00\xff\r\n")
	check("get nothing", errors.Is(r.Get(ctx, key("nothing")).Err(), redis.Nil), true)
	check("set nx", r.SetNX(ctx, key("k"), "v", time.Hour).Val(), false)
	check("set px", r.Set(ctx, key("t"), "v", time.Millisecond).Err(), nil)
	until(func() bool { return r.Exists(ctx, key("t")).Val() == 0 })
	check("set ex", r.Set(ctx, key("t"), "v", 1000*time.Second).Err(), nil)
	check("ttl", r.TTL(ctx, key("t")).Val() > 990*time.Second, true)
	check("mset", r.MSet(ctx, key("a"), 1, key("b"), 2).Err(), nil)
	check("mget", r.MGet(ctx, key("a"), key("b"), key("nothing")).Val(), []any{"1", "2", nil})
	check("incr", r.IncrBy(ctx, key("a"), 9).Val(), int64(10))
	check("del", r.Del(ctx, key("a"), key("b"), key("nothing")).Val(), int64(2))
	written, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
		for number := range pipeline {
			p.Set(ctx, key(number), number, 0)
		}
		return nil
	})
	check("a pipeline of writes", []any{len(written), err}, []any{pipeline, nil})
	read, err := other.Pipelined(ctx, func(p redis.Pipeliner) error {
		for number := range pipeline {
			p.Get(ctx, key(number))
		}
		return nil
	})
	check("a pipeline of reads", []any{len(read), err}, []any{pipeline, nil})
	for number, answer := range read {
		check("one of them", answer.(*redis.StringCmd).Val(), fmt.Sprint(number))
	}
	refused("a list", r.LPush(ctx, key("l"), "v").Err(), "unknown command 'lpush'")
	_, err = r.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, key("m"), "v", 0).Err() })
	refused("a transaction", err, "unknown command 'multi'")
	check("of which nothing is done", r.Exists(ctx, key("m")).Val(), int64(0))
}

// A client of a cluster goes by slots, and is never redirected.
func clusterMode(ports []string) {
	ctx := context.Background()
	r := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:" + ports[0]}})
	defer r.Close()
	for number := range 300 {
		key := fmt.Sprint("slots:", number)
		check("set", r.Set(ctx, key, number, 0).Err(), nil)
		check("get", r.Get(ctx, key).Val(), fmt.Sprint(number))
	}
	var masters atomic.Int64
	err := r.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		masters.Add(1)
		return master.Ping(ctx).Err()
	})
	check("masters", []any{masters.Load(), err}, []any{int64(len(ports)), nil})
}

func main() {
	commands(os.Args[1:], 2)
	commands(os.Args[1:], 3)
	clusterMode(os.Args[1:])
	fmt.Printf("go-redis %s: %d checks\n", redis.Version(), checks)
}
