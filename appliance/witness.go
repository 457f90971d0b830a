package appliance

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"dimegate/vault/audit"
)

// sizeType is the content type of an answer that is a size (C2SP tlog-witness).
const sizeType = "text/x.tlog.size"

// ServeWitness answers POST /add-checkpoint until ctx ends and what was begun is answered, over TLS when there is a certificate: what it signs needs no TLS.
func ServeWitness(ctx context.Context, ln net.Listener, w *audit.Witness, certificate *tls.Certificate, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", func(rw http.ResponseWriter, r *http.Request) {
		request, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, audit.MaxWitnessRequest))
		if err != nil {
			http.Error(rw, "the request is too large, or was cut", http.StatusBadRequest)
			return
		}
		a, err := w.Add(request, time.Now())
		if err != nil {
			log.Error("nothing was cosigned", "error", err)
			http.Error(rw, "a fault of the witness", http.StatusInternalServerError)
			return
		}
		if a.Status == http.StatusConflict || a.Status == http.StatusUnprocessableEntity {
			log.Warn("refused to cosign: not what follows on the last checkpoint", "status", a.Status)
		}
		if a.Size {
			rw.Header().Set("Content-Type", sizeType)
		}
		rw.WriteHeader(a.Status)
		io.WriteString(rw, a.Body)
	})
	s := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	if certificate != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12})
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.WriteTimeout)
		defer cancel()
		ended <- s.Shutdown(grace)
	})
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-ended
}

func (t *tenant) makeWitnesses() error {
	for i, text := range t.config.Audit.Witnesses {
		w, err := NewRemoteWitness(text)
		if err != nil {
			return fmt.Errorf("%s: %w", t.config.Vault.WitnessKey(i), err)
		}
		t.witnesses = append(t.witnesses, w)
	}
	return nil
}

// NewRemoteWitness is a witness at a URL, given as "URL KEY", to which "/add-checkpoint" is added.
func NewRemoteWitness(text string) (*audit.RemoteWitness, error) {
	url, key, _ := strings.Cut(text, " ")
	v, err := audit.ParseWitness(key)
	if err != nil {
		return nil, err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &audit.RemoteWitness{Verifier: v, Add: func(ctx context.Context, request []byte) (audit.Answer, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/add-checkpoint", bytes.NewReader(request))
		if err != nil {
			return audit.Answer{}, err
		}
		resp, err := client.Do(r)
		if err != nil {
			return audit.Answer{}, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, audit.MaxWitnessRequest))
		return audit.Answer{Status: resp.StatusCode, Size: resp.Header.Get("Content-Type") == sizeType, Body: string(body)}, err
	}}, nil
}
