// Command kubernetes is every server of one Kubernetes cluster in a single program.
//
// The first argument names the component; the rest are that component's own flags, unchanged. A link
// to the program that is called like a component (kubectl) is that component.
// Each component is the upstream command, linked as a library: nothing here changes what it does.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components maps a first argument to the function that runs it. Each reads os.Args.
var components = map[string]func() int{
	"apiserver":          command(apiserver.NewAPIServerCommand),
	"controller-manager": command(manager.NewControllerManagerCommand),
	"scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":            command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"proxy":              command(proxy.NewProxyCommand),
	"kubectl":            command(kubectl.NewDefaultKubectlCommand),
	"etcd":               func() int { etcdmain.Main(os.Args); return 0 },
	"coredns":            func() int { coremain.Run(); return 0 },
}

// command delays making a cobra command until it is the chosen one: making all of them would
// register clashing flags and metrics.
func command(make func() *cobra.Command) func() int {
	return func() int { return cli.Run(make()) }
}

// CoreDNS orders its plugins by this list, and refuses to start when it names a missing one.
func init() {
	dnsserver.Directives = []string{"bind", "errors", "health", "ready", "cache", "kubernetes"}
}

func usage() int {
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "usage: kubernetes {%s} [flags]\n", strings.Join(names, "|"))
	return 2
}

func main() {
	// A component must see its own flags only, behind its own name.
	if _, linked := components[filepath.Base(os.Args[0])]; !linked {
		os.Args = os.Args[1:]
	}
	if len(os.Args) == 0 {
		os.Exit(usage())
	}
	run, known := components[filepath.Base(os.Args[0])]
	if !known {
		os.Exit(usage())
	}
	os.Exit(run())
}
