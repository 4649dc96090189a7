package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/ingest"
	"logvault/internal/gateway"
	"logvault/seal/segment"
	"logvault/vault"
)

func (a *app) ingestCommand() *cli.Command {
	return &cli.Command{
		Name:  "ingest",
		Usage: "import existing log files",
		Description: describe("Imports plain, .gz and .zst files, or standard input. Importing the same file twice stores it once, also when\n"+
			"it is compressed another time; what comes through --stdin is always stored. Without --recorded-at the records count from now.",
			"logvault ingest --source squid1 --recorded-at 2026-11-01 --file /var/log/squid/access.log.1.gz", codePartial, codeRefused, codeNoVault, codeLocked),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "source", Aliases: []string{"s"}, Usage: "the proxy `NAME` that wrote the lines"},
			&cli.StringSliceFlag{Name: "file", Aliases: []string{"f"}, Usage: "log `FILE`; repeat it for more"},
			&cli.BoolFlag{Name: "stdin", Usage: "read the lines from standard input"},
			&cli.StringFlag{Name: "name", Usage: "with --stdin: the file `NAME` that the lines would have"},
			&cli.StringFlag{Name: "recorded-at", Usage: "`TIME` of the youngest line, from which retention counts"},
			&cli.StringFlag{Name: "tz", Usage: "zone `ZONE` of a time that has none (default: local)"},
		},
		Action: a.ingest,
	}
}

func (a *app) ingest(c *cli.Context) (err error) {
	if err := need(c, "source"); err != nil {
		return err
	}
	files := c.StringSlice("file")
	switch {
	case c.Bool("stdin") == (len(files) > 0):
		return usagef("ingest: give either --file or --stdin")
	case c.Bool("stdin") && !c.IsSet("name"):
		return usagef("ingest: --stdin needs --name")
	case len(files) > 0 && c.IsSet("name"):
		return usagef("ingest: --name goes with --stdin; a file has its own")
	}
	var recorded time.Time
	if c.IsSet("recorded-at") {
		if recorded, err = a.parseTime(c, "recorded-at"); err != nil {
			return err
		}
		if recorded.After(a.now()) {
			return usagef("ingest: --recorded-at %s lies in the future", recorded.Format(time.RFC3339))
		}
	}
	svc, err := a.connect(c)
	if err != nil {
		return err
	}
	defer closeInto(svc, &err)
	h := ingest.ImportHeader{Source: vault.Source(c.String("source")), Recorded: recorded}
	if err := h.Source.Valid(); err != nil {
		return usagef("ingest: %v", err)
	}
	if c.Bool("stdin") {
		h.Name, h.Compared = []byte(c.String("name")), -1
		if h.Stream, err = vault.NewStreamID(a.random); err != nil {
			return err
		}
		return a.importOne(c, svc, h, a.in, c.String("name"))
	}
	for _, file := range files {
		err := a.importFile(c, svc, h, file)
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return &codedError{codeFailure, "the file is cut off or still being written; nothing of it counts as imported", err}
		case errors.Is(err, syscall.EISDIR):
			return &codedError{codeUsage, "name its files: --file A --file B; the files before it are imported", err}
		case errors.Is(err, fs.ErrNotExist):
			return &codedError{codeFailure, "check the path; the files before it are imported", err}
		case err != nil:
			return err
		}
	}
	return nil
}

// importFile imports a file, unless it was imported before, or goes on with an
// import of it that was interrupted.
func (a *app) importFile(c *cli.Context, svc gateway.Service, h ingest.ImportHeader, file string) error {
	abs, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	h.Name = []byte(abs)
	var already bool
	if already, err = a.streamOf(c, svc, &h, file); err != nil {
		return err
	}
	if already {
		return a.printImport(c, h, file, ingest.ImportResult{Already: true})
	}
	r, err := openLog(file)
	if err != nil {
		return err
	}
	defer r.Close() // read-only
	body := io.Reader(r)
	if bar := a.progress(c, -1, filepath.Base(file)); bar != nil {
		body = io.TeeReader(r, bar)
		defer bar.Close() // talk only
	}
	return a.importOne(c, svc, h, body, file)
}

// streamOf finds the stream of a file: that of an earlier import of the same
// content, of which already tells whether it is complete, else a new one. Only
// if an earlier file began alike is the file read for it.
func (a *app) streamOf(c *cli.Context, svc gateway.Service, h *ingest.ImportHeader, file string) (already bool, err error) {
	r, err := openLog(file)
	if err != nil {
		return false, err
	}
	defer r.Close() // read-only
	in := bufio.NewReaderSize(r, ingest.HeadSize)
	head, err := ingest.Head(in)
	if err != nil {
		return false, err // names the file, as those of Match do
	}
	earlier, err := svc.Imports(c.Context, h.Source, head)
	if err != nil {
		return false, err
	}
	h.Compared = len(earlier)
	e, ok, err := ingest.Match(in, earlier)
	if err != nil {
		return false, err
	}
	if ok {
		h.Stream = e.Stream
		return e.Done, nil
	}
	h.Stream, err = vault.NewStreamID(a.random)
	return false, err
}

func (a *app) importOne(c *cli.Context, svc gateway.Service, h ingest.ImportHeader, body io.Reader, file string) error {
	res, err := svc.Ingest(c.Context, h, body)
	if err != nil {
		return err
	}
	return a.printImport(c, h, file, res)
}

func (a *app) printImport(c *cli.Context, h ingest.ImportHeader, file string, res ingest.ImportResult) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "ingested", "file": file, "source": h.Source, "stream": h.Stream.String(),
			"bytes": res.Bytes, "stored": res.Stored, "already": res.Already})
	}
	if res.Already {
		a.talk(c, "%s: was imported before, nothing stored", file)
		return nil
	}
	a.talk(c, "%s: %s imported and sealed as stream %s", file, bytesText(res.Bytes), h.Stream)
	return nil
}

// openLog opens a log file and decompresses it by its content.
func openLog(file string) (io.ReadCloser, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	r, err := segment.OpenPlain(bufio.NewReaderSize(f, 1<<20), file)
	if err != nil {
		f.Close() // read-only
		return nil, err
	}
	return &logFile{r, f}, nil
}

// logFile closes both layers.
type logFile struct {
	io.ReadCloser
	file *os.File
}

// Close implements io.Closer.
func (l *logFile) Close() error {
	err := l.ReadCloser.Close()
	if ferr := l.file.Close(); err == nil {
		err = ferr
	}
	return err
}
