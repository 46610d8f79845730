// The echo over net/rpc: gob over one TCP connection with mutual TLS.
//
// `peer answer` listens, `peer call ADDR` makes calls on command, as the processes of `peers` do.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net/rpc"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"
)

type Bench struct{}

func (Bench) Echo(message []byte, reply *[]byte) error {
	*reply = message
	return nil
}

type load struct {
	Bytes    int `json:"bytes"`
	InFlight int `json:"in_flight"`
	Bulk     int `json:"bulk"`
	Millis   int `json:"millis"`
}

type round struct {
	Calls          int     `json:"calls"`
	CallsPerSecond float64 `json:"calls_per_second"`
	P50            float64 `json:"p50_us"`
	P99            float64 `json:"p99_us"`
	P999           float64 `json:"p999_us"`
}

func config(name string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(name+".pem", name+".key")
	check(err)
	text, err := os.ReadFile("ca.pem")
	check(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		log.Fatal("ca.pem has no certificate")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
		ServerName:   "localhost",
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func answer() {
	check(rpc.Register(Bench{}))
	host := os.Getenv("PEERS_LISTEN")
	if host == "" {
		host = "127.0.0.1"
	}
	listener, err := tls.Listen("tcp", host+":0", config("node-edge"))
	check(err)
	fmt.Println("at", listener.Addr())
	go rpc.Accept(listener)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
	}
}

func call(to string) {
	connection, err := tls.Dial("tcp", to, config("caller-c"))
	check(err)
	client := rpc.NewClient(connection)
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command load
		check(json.Unmarshal(lines.Bytes(), &command))
		text, err := json.Marshal(measure(client, command))
		check(err)
		fmt.Println(string(text))
	}
}

func measure(client *rpc.Client, command load) round {
	length := time.Duration(command.Millis) * time.Millisecond
	var callers sync.WaitGroup
	var lock sync.Mutex
	var all []time.Duration
	began := time.Now()
	for i := 0; i < command.InFlight+command.Bulk; i++ {
		bytes, isMeasured := command.Bytes, i < command.InFlight
		if !isMeasured {
			bytes = 1 << 20
		}
		callers.Add(1)
		go func() {
			defer callers.Done()
			message := make([]byte, bytes)
			times := make([]time.Duration, 0, 4096)
			for time.Since(began) < length {
				var reply []byte
				start := time.Now()
				check(client.Call("Bench.Echo", message, &reply))
				times = append(times, time.Since(start))
				if len(reply) != len(message) {
					log.Fatal("another message came back")
				}
			}
			if isMeasured {
				lock.Lock()
				all = append(all, times...)
				lock.Unlock()
			}
		}()
	}
	callers.Wait()
	seconds := time.Since(began).Seconds()
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := func(part float64) float64 {
		return float64(all[int(float64(len(all))*part)].Nanoseconds()) / 1e3
	}
	return round{len(all), float64(len(all)) / seconds, at(0.5), at(0.99), at(0.999)}
}

func main() {
	runtime.GOMAXPROCS(2)
	if len(os.Args) == 2 && os.Args[1] == "answer" {
		answer()
	} else if len(os.Args) == 3 && os.Args[1] == "call" {
		call(os.Args[2])
	} else {
		log.Fatal("peer answer | peer call ADDR")
	}
}
