// Reads the log of a commons with the packages that Go's own module mirror is checked by, and nothing of Gesell's.
//
//	reader -vkey KEY -log FOLDER -old NOTE -new NOTE [-proof FILE]…
//
// The folder holds what a ledger serves below …/log/, each resource in a file of its path (C2SP tlog-tiles). Both notes
// are checkpoints of it, the older first. Checked are: both signatures, by package note; every tile against the
// checkpoint's root, every entry against its tile, a proof of inclusion for each entry and of consistency between the
// checkpoints, by package tlog; and receipts (C2SP tlog-proof) against the checkpoints in them.
//
// Prints what was checked as JSON. The first thing that does not hold is named on stderr, with status 1.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// folder reads tiles from files named as tlog-tiles names them: sumdb's own paths have the height in front.
type folder struct{ root string }

func (f folder) Height() int { return tileHeight }

func (f folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(f.root, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("tile %s has %d bytes", path, len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

// entries reads the leaf data of all entries from their bundles.
func (f folder) entries(size int64) ([][]byte, error) {
	var all [][]byte
	for n := int64(0); n<<tileHeight < size; n++ {
		width := size - n<<tileHeight
		if width > 1<<tileHeight {
			width = 1 << tileHeight
		}
		tile := tlog.Tile{H: tileHeight, L: -1, N: n, W: int(width)}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", tileHeight), "tile/entries/", 1)
		bundle, err := os.ReadFile(filepath.Join(f.root, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		var inside int64
		for len(bundle) > 0 {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("bundle %s is cut off", path)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			all = append(all, bundle[2:end])
			bundle = bundle[end:]
			inside++
		}
		if inside != width {
			return nil, fmt.Errorf("bundle %s has %d entries", path, inside)
		}
	}
	return all, nil
}

// open verifies a checkpoint and returns the tree that it is of.
func open(text []byte, key note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	opened, err := note.Open(text, note.VerifierList(key))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != key.Name() || lines[3] != "" {
		return tree, errors.New("the note is no checkpoint of this log")
	}
	tree.N, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

// checkProof verifies a tlog-proof file and returns the index that it proves.
func checkProof(path string, key note.Verifier, entries [][]byte) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	cut := bytes.Index(text, []byte("\n\n"))
	if cut < 0 {
		return 0, errors.New("the proof has no checkpoint")
	}
	lines := strings.Split(string(text[:cut]), "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "extra ") ||
		!strings.HasPrefix(lines[2], "index ") {
		return 0, errors.New("the file is no proof with an entry")
	}
	index, err := strconv.ParseInt(lines[2][len("index "):], 10, 64)
	if err != nil {
		return 0, err
	}
	extra, err := base64.StdEncoding.DecodeString(lines[1][len("extra "):])
	if err != nil {
		return 0, err
	}
	entry, err := firstBin(extra)
	if err != nil {
		return 0, err
	}
	if index >= int64(len(entries)) || !bytes.Equal(entry, entries[index]) {
		return 0, fmt.Errorf("the proof of index %d carries another entry than the log", index)
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, err
		}
		proof = append(proof, hash)
	}
	tree, err := open(text[cut+2:], key)
	if err != nil {
		return 0, err
	}
	return index, tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}

// firstBin returns the first item of a MessagePack array of two, a bin.
func firstBin(data []byte) ([]byte, error) {
	// Two items, or three with the founding.
	if len(data) > 3 && data[0]|1 == 0x93 && data[1] == 0xc4 && len(data) >= 3+int(data[2]) {
		return data[3 : 3+int(data[2])], nil
	}
	if len(data) > 4 && data[0]|1 == 0x93 && data[1] == 0xc5 {
		if size := int(binary.BigEndian.Uint16(data[2:])); len(data) >= 4+size {
			return data[4 : 4+size], nil
		}
	}
	return nil, errors.New("the proof carries no entry")
}

// checkLog checks everything that the folder holds against the two checkpoints.
func checkLog(log folder, older, newer tlog.Tree) ([][]byte, error) {
	entries, err := log.entries(newer.N)
	if err != nil {
		return nil, err
	}
	tiles := tlog.TileHashReader(newer, log)
	var indexes []int64
	for n := int64(0); n < newer.N; n++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, n))
	}
	leaves, err := tiles.ReadHashes(indexes)
	if err != nil {
		return nil, err
	}
	for n, entry := range entries {
		if tlog.RecordHash(entry) != leaves[n] {
			return nil, fmt.Errorf("entry %d is not what its tile says", n+1)
		}
		proof, err := tlog.ProveRecord(newer.N, int64(n), tiles)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckRecord(proof, newer.N, newer.Hash, int64(n), tlog.RecordHash(entry)); err != nil {
			return nil, fmt.Errorf("entry %d: %w", n+1, err)
		}
	}
	// The older tree by its own tiles, partial ones that are full by now among them, then the way from it.
	root, err := tlog.TreeHash(older.N, tlog.TileHashReader(older, log))
	if err != nil {
		return nil, err
	}
	if root != older.Hash {
		return nil, errors.New("the older tree's tiles do not hash to its root")
	}
	proof, err := tlog.ProveTree(newer.N, older.N, tiles)
	if err != nil {
		return nil, err
	}
	return entries, tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash)
}

type names []string

func (n *names) String() string         { return strings.Join(*n, " ") }
func (n *names) Set(value string) error { *n = append(*n, value); return nil }

func run() error {
	vkey := flag.String("vkey", "", "the ledger's verifier key")
	root := flag.String("log", "", "the folder")
	olderPath := flag.String("old", "", "the older checkpoint")
	newerPath := flag.String("new", "", "the newer checkpoint")
	var proofs names
	flag.Var(&proofs, "proof", "a receipt")
	flag.Parse()
	key, err := note.NewVerifier(*vkey)
	if err != nil {
		return err
	}
	var trees [2]tlog.Tree
	for place, path := range []string{*olderPath, *newerPath} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if trees[place], err = open(text, key); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	entries, err := checkLog(folder{*root}, trees[0], trees[1])
	if err != nil {
		return err
	}
	proven := []int64{}
	for _, path := range proofs {
		index, err := checkProof(path, key, entries)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		proven = append(proven, index)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"old": trees[0].N, "new": trees[1].N, "root": trees[1].Hash.String(), "entries": len(entries), "proven": proven,
	})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
