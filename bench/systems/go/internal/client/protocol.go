package client

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

type operation struct {
	Op           string   `json:"op"`
	Queue        string   `json:"queue"`
	Queues       []string `json:"queues"`
	Concurrency  int      `json:"concurrency"`
	DurationMs   float64  `json:"durationMs"`
	PayloadBytes int      `json:"payloadBytes"`
	DueAtMs      float64  `json:"dueAtMs"`
	FromMs       float64  `json:"fromMs"`
	Jobs         int      `json:"jobs"`
	Batch        int      `json:"batch"`
	Calls        int      `json:"calls"`
	Streams      int      `json:"streams"`
	Unfinished   int      `json:"unfinished"`
	PerSecond    float64  `json:"perSecond"`
}

type done struct {
	Done        bool      `json:"done"`
	Jobs        int       `json:"jobs"`
	ElapsedMs   float64   `json:"elapsedMs"`
	LatenciesMs []float64 `json:"latenciesMs,omitempty"`
}

type failed struct {
	Done  bool   `json:"done"`
	Error string `json:"error"`
}

// More than any operation needs with its queues' names.
const longestLine = 1 << 20

// Main is the whole of a client's main function. Its arguments are the address that connect takes, or -version, which
// prints the version of the system's module.
func Main(module string, connect func(address string) (Driver, error)) {
	if len(os.Args) != 2 {
		fmt.Fprintf(os.Stderr, "usage: %s ADDRESS|-version\n", os.Args[0])
		os.Exit(2)
	}
	if os.Args[1] == "-version" {
		fmt.Println(versionOf(module))
		return
	}
	driver, err := connect(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answers := json.NewEncoder(os.Stdout)
	for line := range lines() {
		if err := answers.Encode(answer(driver, line)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func answer(driver Driver, line []byte) any {
	var op operation
	if err := json.Unmarshal(line, &op); err != nil {
		return failed{Error: err.Error()}
	}
	result, err := run(driver, op)
	if err != nil {
		return failed{Error: err.Error()}
	}
	result.Done = true
	return result
}

// lines reads stdin, and ends the process with it, also in the middle of an operation: the benchmark has gone.
func lines() <-chan []byte {
	lines := make(chan []byte)
	go func() {
		scanner := bufio.NewScanner(os.Stdin)
		scanner.Buffer(nil, longestLine)
		for scanner.Scan() {
			lines <- append([]byte(nil), scanner.Bytes()...)
		}
		if err := scanner.Err(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}()
	return lines
}

func versionOf(module string) string {
	build, ok := debug.ReadBuildInfo()
	if ok {
		for _, dependency := range build.Deps {
			if dependency.Path == module {
				return strings.TrimPrefix(dependency.Version, "v")
			}
		}
	}
	return "unknown"
}
