package e2e

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"unicode/utf16"
)

// serveSQL listens for logins to Azure SQL, and hands the token of each to the resource. It speaks
// as much TDS as a login takes, as MS-TDS describes it, without encryption so that the token can be
// read. Every statement succeeds and has no rows. It returns the port.
func (r *resource) serveSQL(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				_ = r.speakTDS(connection)
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

// Kinds of packet: MS-TDS 2.2.3.1.1.
const (
	tdsReply    = 0x04
	tdsLogin    = 0x10
	tdsPrelogin = 0x12
)

// done ends the reply to a statement: MS-TDS 2.2.7.6.
var done = slices.Concat([]byte{0xfd}, make([]byte, 12))

func (r *resource) speakTDS(connection net.Conn) error {
	for {
		kind, data, err := readTDS(connection)
		if err != nil {
			return err
		}
		answer := done
		switch kind {
		case tdsPrelogin:
			// Three options, each with its place and length, and their values: a version,
			// "encryption is not supported" and "a token is required" (MS-TDS 2.2.6.5).
			answer = []byte{0, 0, 16, 0, 6, 1, 0, 22, 0, 1, 6, 0, 23, 0, 1, 0xff, 16, 0, 0, 0, 0, 0, 2, 1}
		case tdsLogin:
			token, err := loginToken(data)
			if err := errors.Join(err, r.authorize(token)); err != nil {
				return err
			}
			// LOGINACK of version 7.4, FEATUREEXTACK of the token, DONE (MS-TDS 2.2.7.14 and
			// 2.2.7.11)
			answer = slices.Concat([]byte{0xad, 12, 0, 1, 0x74, 0, 0, 4, 1, 'S', 0, 16, 0, 0, 0}, []byte{0xae, 2, 0, 0, 0, 0, 0xff}, done)
		}
		header := []byte{tdsReply, 1, 0, 0, 0, 0, 1, 0}
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(answer)))
		if _, err := connection.Write(append(header, answer...)); err != nil {
			return err
		}
	}
}

// readTDS reads a message, which may come in several packets.
func readTDS(r io.Reader) (kind byte, data []byte, err error) {
	for {
		var header [8]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return 0, nil, err
		}
		packet := make([]byte, max(int(binary.BigEndian.Uint16(header[2:]))-len(header), 0))
		if _, err := io.ReadFull(r, packet); err != nil {
			return 0, nil, err
		}
		if data = append(data, packet...); header[1]&1 != 0 {
			return header[0], data, nil
		}
	}
}

// loginToken finds the security token among the feature extensions of a login: MS-TDS 2.2.6.4.
func loginToken(login []byte) (token string, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("a login that breaks off")
		}
	}()
	number := binary.LittleEndian.Uint32
	if login[27]&0x10 == 0 {
		return "", errors.New("a login without extensions, and so without a token")
	}
	extension := binary.LittleEndian.Uint16(login[56:])
	for features := login[number(login[extension:]):]; features[0] != 0xff; {
		feature, data := features[0], features[5:][:number(features[1:])]
		if features = features[5+len(data):]; feature != 2 || data[0]>>1 != 1 {
			continue // not a federated authentication with a security token
		}
		text := data[5:][:number(data[1:])]
		units := make([]uint16, len(text)/2)
		for i := range units {
			units[i] = binary.LittleEndian.Uint16(text[2*i:])
		}
		return string(utf16.Decode(units)), nil
	}
	return "", errors.New("a login without a token")
}
