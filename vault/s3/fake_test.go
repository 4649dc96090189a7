package s3_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"logvault/vault/s3"
)

// fake is as much of an S3 server as the store asks for, in memory: objects,
// versions, delete markers, pages, Object Lock. What a test wants otherwise it does
// in fault.
type fake struct {
	cfg       s3.Config
	versioned bool   // the bucket keeps versions
	locks     bool   // and has Object Lock
	page      int    // the most that one listing answers
	rule      string // of its Object Lock configuration

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	objects  map[string][]*version                             // oldest first
	versions int
	requests []string
}

// version is one version of an object, or a delete marker.
type version struct {
	key, id  string
	data     []byte
	marker   bool
	modified time.Time
	checksum string // as the client gave it
	mode     string
	until    time.Time
	hold     bool
}

const bucketName = "vault"

// TestMain gives the account of the fakes; the tests with real servers set another.
func TestMain(m *testing.M) {
	os.Setenv("AWS_ACCESS_KEY_ID", "test") // never fails for such a name
	os.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	os.Exit(m.Run())
}

// startFake starts a server whose bucket is empty. kind is "plain", "versioned" or
// "locked".
func startFake(t *testing.T, kind string) *fake {
	t.Helper()
	f := &fake{versioned: kind != "plain", locks: kind == "locked", page: 1000, objects: map[string][]*version{}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.cfg = s3.Config{Endpoint: strings.TrimPrefix(server.URL, "http://"), Plain: true, Bucket: bucketName, Prefix: "a/b", Region: "us-east-1"}
	return f
}

// set sets what is asked before each request; nil: nothing.
func (f *fake) set(fault func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.requests = fault, nil
}

// ServeHTTP answers one request at a time, as a bucket would.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut short: nothing is stored
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
	if f.fault != nil && f.fault(w, r) {
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	switch {
	case bucket != bucketName:
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case key == "":
		f.bucket(w, r, q)
	case r.Method == http.MethodPut && q.Has("retention"):
		f.retain(w, key, q.Get("versionId"), body)
	case r.Method == http.MethodPut && q.Has("legal-hold"):
		if v := f.find(key, q.Get("versionId")); v != nil {
			v.hold = strings.Contains(string(body), ">ON<")
		}
	case r.Method == http.MethodPut:
		f.put(w, r, key, body)
	case r.Method == http.MethodDelete:
		f.remove(w, key, q.Get("versionId"))
	default:
		f.get(w, r, key, q.Get("versionId"))
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>said so</Message></Error>", code)
}

func (f *fake) bucket(w http.ResponseWriter, r *http.Request, q url.Values) {
	switch {
	case r.Method == http.MethodHead:
	case q.Has("location"):
		fmt.Fprint(w, `<LocationConstraint>us-east-1</LocationConstraint>`)
	case q.Has("versioning"):
		fmt.Fprintf(w, `<VersioningConfiguration>%s</VersioningConfiguration>`, map[bool]string{true: "<Status>Enabled</Status>"}[f.versioned])
	case q.Has("object-lock"):
		if !f.locks {
			refuse(w, http.StatusNotFound, "ObjectLockConfigurationNotFoundError")
			return
		}
		fmt.Fprint(w, `<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>`+f.rule+`</ObjectLockConfiguration>`)
	case q.Has("uploads"):
		fmt.Fprint(w, `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>`)
	default:
		f.list(w, q)
	}
}

// list answers a page of objects or, if asked for, of versions.
func (f *fake) list(w http.ResponseWriter, q url.Values) {
	all := q.Has("versions")
	var items []*version
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		versions := slices.Clone(f.objects[key])
		slices.Reverse(versions)
		if !strings.HasPrefix(key, q.Get("prefix")) || len(versions) == 0 {
			continue
		}
		if all {
			items = append(items, versions...)
		} else if !versions[0].marker {
			items = append(items, versions[0])
		}
	}
	after := q.Get("continuation-token") + q.Get("version-id-marker") // the last version of the page before
	if i := slices.IndexFunc(items, func(v *version) bool { return v.id == after }); i >= 0 {
		items = items[i+1:]
	}
	page := f.page
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n > 0 {
		page = min(page, n)
	}
	more := len(items) > page
	items = items[:min(page, len(items))]
	root := map[bool]string{true: "ListVersionsResult", false: "ListBucketResult"}[all]
	fmt.Fprintf(w, "<%s><IsTruncated>%v</IsTruncated>", root, more)
	if more {
		last := items[len(items)-1]
		if all {
			fmt.Fprintf(w, "<NextKeyMarker>%s</NextKeyMarker><NextVersionIdMarker>%s</NextVersionIdMarker>", last.key, last.id)
		} else {
			fmt.Fprintf(w, "<NextContinuationToken>%s</NextContinuationToken>", last.id)
		}
	}
	for _, v := range items {
		element := "Contents"
		if all {
			element = map[bool]string{true: "DeleteMarker", false: "Version"}[v.marker]
		}
		fmt.Fprintf(w, "<%s><Key>", element)
		xml.EscapeText(w, []byte(v.key))
		fmt.Fprintf(w, "</Key><VersionId>%s</VersionId><IsLatest>%v</IsLatest><LastModified>%s</LastModified><Size>%d</Size></%s>", v.id,
			v == f.find(v.key, ""), v.modified.UTC().Format(time.RFC3339), len(v.data), element)
	}
	fmt.Fprintf(w, "</%s>", root)
}

// find returns a version, "" for the newest, or nil.
func (f *fake) find(key, id string) *version {
	versions := f.objects[key]
	if id == "" && len(versions) > 0 {
		return versions[len(versions)-1]
	}
	if i := slices.IndexFunc(versions, func(v *version) bool { return v.id == id }); i >= 0 {
		return versions[i]
	}
	return nil
}

func (f *fake) add(v *version) {
	f.versions++
	v.id, v.modified = fmt.Sprintf("v%06d", f.versions), time.Now()
	if f.versioned {
		f.objects[v.key] = append(f.objects[v.key], v)
	} else {
		f.objects[v.key] = []*version{v}
	}
}

func (f *fake) put(w http.ResponseWriter, r *http.Request, key string, data []byte) {
	if there := f.find(key, ""); r.Header.Get("If-None-Match") == "*" && there != nil && !there.marker {
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	sum := sha256.Sum256(data)
	checksum := base64.StdEncoding.EncodeToString(sum[:])
	if r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) || r.Header.Get("X-Amz-Checksum-Sha256") != checksum {
		refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
		return
	}
	v := &version{key: key, data: data, checksum: checksum}
	f.add(v)
	if f.versioned {
		w.Header().Set("X-Amz-Version-Id", v.id)
	}
	w.Header().Set("ETag", `"1"`)
}

func (f *fake) get(w http.ResponseWriter, r *http.Request, key, id string) {
	v := f.find(key, id)
	if v == nil || v.marker {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	h := w.Header()
	h.Set("ETag", `"1"`)
	h.Set("Last-Modified", v.modified.UTC().Format(http.TimeFormat))
	h.Set("Content-Length", strconv.Itoa(len(v.data)))
	if f.versioned {
		h.Set("X-Amz-Version-Id", v.id)
	}
	if r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		h.Set("X-Amz-Checksum-Sha256", v.checksum)
	}
	if v.mode != "" {
		h.Set("X-Amz-Object-Lock-Mode", v.mode)
		h.Set("X-Amz-Object-Lock-Retain-Until-Date", v.until.UTC().Format(time.RFC3339))
	}
	if r.Method == http.MethodGet {
		w.Write(v.data)
	}
}

// remove puts a delete marker on an object, or removes a version that nothing
// locks.
func (f *fake) remove(w http.ResponseWriter, key, id string) {
	w.WriteHeader(f.removed(key, id))
}

func (f *fake) removed(key, id string) int {
	v := f.find(key, id)
	switch {
	case id == "" && f.versioned:
		f.add(&version{key: key, marker: true})
	case v == nil:
	case v.locked() || v.hold:
		return http.StatusForbidden
	default:
		f.objects[key] = slices.DeleteFunc(f.objects[key], func(o *version) bool { return o == v })
		if len(f.objects[key]) == 0 {
			delete(f.objects, key)
		}
	}
	return http.StatusNoContent
}

// locked reports whether a version's lock has not ended.
func (v *version) locked() bool { return v.mode != "" && time.Now().Before(v.until) }

// retain locks a version, and never for less than it is.
func (f *fake) retain(w http.ResponseWriter, key, id string, body []byte) {
	var want struct {
		Mode            string
		RetainUntilDate time.Time
	}
	if err := xml.Unmarshal(body, &want); err != nil {
		refuse(w, http.StatusBadRequest, "MalformedXML")
		return
	}
	v := f.find(key, id)
	if v == nil || v.locked() && (want.Mode != v.mode || want.RetainUntilDate.Before(v.until)) {
		refuse(w, http.StatusForbidden, "AccessDenied")
		return
	}
	v.mode, v.until = want.Mode, want.RetainUntilDate
}
