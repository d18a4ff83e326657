# What gpu-orch-worker tells of its GPUs. The management library is one of our own making, which says what the
# environment tells it to.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $program = $ENV{GPU_ORCH_WORKER}
  // File::Spec->rel2abs(dirname(__FILE__) . '/../../worker/gpu-orch-worker');
plan skip_all => "$program is not built" unless -x $program;

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/nvml.c", <<'EOT');
#include <stdio.h>
#include <stdlib.h>
struct memory { unsigned long long total, free, used; };
struct utilization { unsigned int gpu, memory; };
static char device[2];
/* FAKE_GPUS has the devices' memory in MiB: "23034 81559". */
static int mib(int index)
{
	char *at = getenv("FAKE_GPUS");
	long size = 0;

	for (int i = 0; i <= index; i++)
		size = strtol(at, &at, 10);
	return size;
}
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { for (*n = 0; *n < 2 && mib(*n) > 0; ++*n); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **handle) { *handle = &device[i]; return 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned int size)
{ snprintf(name, size, "%s", getenv("FAKE_GPU_NAME")); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *m)
{ m->total = mib((char *) handle - device) * 1048576ULL; m->free = m->total / 2; m->used = m->total - m->free; return 0; }
int nvmlDeviceGetUtilizationRates(void *handle, struct utilization *u) { u->gpu = 37; u->memory = 5; return 0; }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *celsius) { *celsius = 51; return 0; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned int *milliwatts) { return 1; }
EOT
system('cc', '-shared', '-fPIC', '-o', "$dir/libnvidia-ml.so.1", "$dir/nvml.c") == 0
  or BAIL_OUT('the library could not be built');

my $node = GpuOrch->running('worker_gpu', 'gpu_orch.enabled' => 'off');

# devices(ID, NAME, MIB): the environment of a worker that finds such devices.
sub devices
{
	my ($id, $name, $mib) = @_;

	return (
		LD_LIBRARY_PATH => join(':', $dir, grep { defined } $ENV{LD_LIBRARY_PATH}),
		FAKE_GPU_NAME => $name,
		FAKE_GPUS => $mib,
		GPU_ORCH_DSN => $node->connstr('app'),
		GPU_ORCH_WORKER_ID => $id);
}

# registered(NAME, MIB): the hardware that a worker with such devices registers, having done one task.
my $workers = 0;
sub registered
{
	my $id = 'gpu-' . ++$workers;
	local %ENV = (%ENV, devices($id, @_));

	$node->sql(q{SELECT gpu_orch.submit_task('gpu')});
	system_or_bail($program, '--kind', 'gpu', '--once', '--handler', 'cat > /dev/null; echo 1');
	return $node->sql("SELECT concat_ws(' x ', capabilities #>> '{hardware,gpu_count}',
		capabilities #>> '{hardware,gpu_model}', capabilities #>> '{hardware,gpu_memory_gb}') FROM gpu_orch.workers
			WHERE worker_id = '$id'");
}

for my $case (
	[ 'Tesla T4', 15360, '1 x Tesla T4 x 16' ],
	[ 'NVIDIA L4', 23034, '1 x L4 x 24' ],
	[ 'NVIDIA GeForce RTX 4090', 24564, '1 x RTX 4090 x 24' ],
	[ 'NVIDIA L40S', 46068, '1 x L40S x 48' ],
	[ 'NVIDIA H100 80GB HBM3', '81559 81559', '2 x H100 80GB HBM3 x 80' ],
	[ 'NVIDIA H200', 143771, '1 x H200 x 141' ],
	[ 'NVIDIA H100 NVL', '95830 23034', '2 x H100 NVL x 24' ],
	[ 'NVIDIA A100-SXM4-40GB MIG 3g.20gb', 19968, '1 x A100-SXM4-40GB MIG 3g.20gb x 20' ],
	[ 'an odd slice', 71000, '1 x an odd slice x 69' ])
{
	my ($name, $mib, $expected) = @$case;

	is(registered($name, $mib), $expected, "$name of $mib MiB");
}

# What it measures goes with its heartbeats; what a device does not say is left out.
{
	local %ENV = (%ENV, devices('measuring', 'NVIDIA L4', 23034));
	my $worker = IPC::Run::start([ $program, '--kind', 'none', '--handler', 'true' ], '<', '/dev/null', '2>', "$dir/log");

	$node->until('measurements arrive',
		q{SELECT coalesce((SELECT stats ? 'gpus' FROM gpu_orch.workers WHERE worker_id = 'measuring'), false)});
	is($node->sql(q{SELECT stats -> 'gpus' FROM gpu_orch.workers WHERE worker_id = 'measuring'}),
		'[{"index": 0, "memory_used_bytes": 12076449792, "memory_total_bytes": 24152899584, '
		  . '"temperature_celsius": 51, "utilization_percent": 37}]', 'of each device, without the power that it does not tell');
	$worker->signal('TERM');
	$worker->finish;
}

$node->stop;
done_testing();
