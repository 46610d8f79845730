// Command server is the service in the office: net/rpc over TCP, on a local port. It contains no dialback code.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/rpc"
)

// HelloService says hello.
type HelloService struct{}

// Hello answers "x" with "hello:x".
func (*HelloService) Hello(request string, reply *string) error {
	*reply = "hello:" + request
	return nil
}

func main() {
	address := flag.String("listen", "127.0.0.1:1234", "listen address")
	flag.Parse()
	if err := rpc.Register(new(HelloService)); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	rpc.Accept(listener)
}
