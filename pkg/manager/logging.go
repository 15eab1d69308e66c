// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"flag"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/incumbent-io/incumbent/pkg/options"
)

// logControl changes how much the process logs while it runs. What logs through klog
// alone has its verbosity by source file in klog; contextual loggers have theirs here,
// for component-base can set it only once.
type logControl struct{ modules *textlogger.Config }

// applyLogging configures the logs of the whole process. It comes before anything else
// logs at the same time, and once.
func applyLogging(config *options.Config) (*logControl, error) {
	// The hook that flushes a buffer would be lost with the wrapping.
	config.Logging.Options.Text.InfoBufferSize = resource.QuantityValue{}
	config.Logging.Options.JSON.InfoBufferSize = resource.QuantityValue{}
	first := config.Logging.DeepCopy()
	first.VModule = nil // set below, where it can change
	if err := logsapi.ValidateAndApply(first, config.Features); err != nil {
		return nil, err
	}
	klog.StopFlushDaemon() // nothing is buffered, and an idle process should sleep
	klog.SetLogFilter(bodyFilter{})
	control := &logControl{modules: textlogger.NewConfig(textlogger.Verbosity(0))}
	if err := control.apply(config.Logging); err != nil {
		return nil, err
	}
	if !config.Features.Enabled(logsapi.ContextualLogging) {
		return control, nil // all goes through klog and its filter
	}
	logger := klog.Background()
	settings := []klog.LoggerOption{klog.ContextualLogger(true)}
	if writer, ok := logger.GetSink().(textlogger.KlogBufferWriter); ok {
		settings = append(settings, klog.WriteKlogBuffer(writer.WriteKlogBuffer))
	}
	klog.SetLoggerWithOptions(withoutBodies(logger, textlogger.NewLogger(control.modules)), settings...)
	return control, nil
}

// apply changes how much the process logs.
func (c *logControl) apply(config *logsapi.LoggingConfiguration) error {
	if _, err := logs.GlogSetter(strconv.FormatUint(uint64(config.Verbosity), 10)); err != nil {
		return err
	}
	modules := logsapi.VModuleConfigurationPflag(&config.VModule).String()
	if err := c.modules.VModule().Set(modules); err != nil {
		return err
	}
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags) // shares its values with klog
	return klogFlags.Set("vmodule", modules)
}
