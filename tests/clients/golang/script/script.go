// Package script has what the programs share: how they fail, the records that they write, and the comparison of those
// that they read.
package script

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// Count of records of each codec.
const Count = 1000

// Check ends the program with its error.
func Check(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
}

func Expect(is bool, what string, values ...any) {
	if !is {
		Check(fmt.Errorf(what, values...))
	}
}

// Arguments are bootstrap.servers and a topic.
func Arguments() (brokers []string, topic string) {
	return strings.Split(os.Args[1], ","), os.Args[2]
}

// Records are those that were written, and those that were read, by key.
type Records struct {
	mutex        sync.Mutex
	wanted, read map[string]string
}

func NewRecords() *Records {
	return &Records{wanted: map[string]string{}, read: map[string]string{}}
}

// New is a record to write, with its codec as its header.
func (r *Records) New(codec string, number int) (key, value string) {
	key, value = fmt.Sprintf("%s-%d", codec, number), fmt.Sprintf("value %d äöü", number)
	r.wanted[key] = value
	return key, value
}

// Read takes a record, with the names of its headers, and says how many there are now. None comes twice.
func (r *Records) Read(key, value []byte, headers ...string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	Expect(len(headers) == 1 && headers[0] == "codec", "headers of %s: %v", key, headers)
	_, again := r.read[string(key)]
	Expect(!again, "%s is there twice", key)
	r.read[string(key)] = string(value)
	return len(r.read)
}

func (r *Records) Wanted() int { return len(r.wanted) }

func (r *Records) WereRead() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.read)
}

// Compare ends the program unless what was read is what was written.
func (r *Records) Compare() {
	Expect(len(r.read) == len(r.wanted), "%d read of %d", len(r.read), len(r.wanted))
	for key, value := range r.wanted {
		Expect(r.read[key] == value, "%s is %q", key, r.read[key])
	}
}
