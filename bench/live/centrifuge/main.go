// A gateway in Go as centrifuge's documentation suggests it: records of one Kafka topic are published to the channel "one",
// or, where their keys are to name the channel, to that of each user.
//
//	centrifuge PORT BOOTSTRAP TOPIC [keys]
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	port, bootstrap, topic := os.Args[1], os.Args[2], os.Args[3]
	byKey := len(os.Args) > 4
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(_ context.Context, event centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		channel := "one"
		if byKey {
			channel = event.Token
		}
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: channel},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	node.OnConnect(func(_ *centrifuge.Client) {})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	go follow(node, bootstrap, topic, byKey)
	silent := centrifuge.PingPongConfig{PingInterval: -1} // the load client answers none
	http.Handle("/ws", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{PingPongConfig: silent}))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}

func follow(node *centrifuge.Node, bootstrap, topic string, byKey bool) {
	reader, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
	)
	if err != nil {
		log.Fatal(err)
	}
	for {
		fetched := reader.PollFetches(context.Background())
		for _, failed := range fetched.Errors() {
			log.Fatal(failed.Err)
		}
		fetched.EachRecord(func(record *kgo.Record) {
			channel := "one"
			if byKey {
				channel = string(record.Key)
			}
			if _, err := node.Publish(channel, record.Value); err != nil {
				log.Fatal(err)
			}
		})
	}
}
