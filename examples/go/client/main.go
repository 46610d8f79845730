// Command client calls the service with net/rpc over TCP, as if it were on this machine. It contains no dialback code.
package main

import (
	"fmt"
	"log"
	"net/rpc"
	"os"
)

func main() {
	address := "127.0.0.1:1234"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	client, err := rpc.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	var reply string
	if err := client.Call("HelloService.Hello", "hello", &reply); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply)
	if err := client.Close(); err != nil {
		log.Fatal(err)
	}
}
