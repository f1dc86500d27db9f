package client

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
)

// Jobs makes jobs for one operation. Their ids are UUIDs that this process makes but once: random bytes that all of
// them share, and a count.
type Jobs struct {
	payload []byte
}

var (
	process [8]byte
	made    atomic.Uint64
)

func init() {
	rand.Read(process[:])
	process[6] = process[6]&0x0f | 0x40
}

// Printable bytes, so that the payload is as long in a system that carries only JSON.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func newJobs(payloadBytes int) Jobs {
	payload := make([]byte, payloadBytes)
	rand.Read(payload)
	for i, b := range payload {
		payload[i] = alphabet[int(b)%len(alphabet)]
	}
	return Jobs{payload}
}

func (jobs Jobs) one() Job {
	return Job{ID: newID(), Payload: jobs.payload}
}

func (jobs Jobs) many(count int) []Job {
	batch := make([]Job, count)
	for i := range batch {
		batch[i] = jobs.one()
	}
	return batch
}

func newID() string {
	var tail [8]byte
	binary.BigEndian.PutUint64(tail[:], made.Add(1)|1<<63)
	id := make([]byte, 36)
	hex.Encode(id[0:8], process[0:4])
	id[8] = '-'
	hex.Encode(id[9:13], process[4:6])
	id[13] = '-'
	hex.Encode(id[14:18], process[6:8])
	id[18] = '-'
	hex.Encode(id[19:23], tail[0:2])
	id[23] = '-'
	hex.Encode(id[24:36], tail[2:8])
	return string(id)
}
