# Where the provider's key is in the leader's memory: once while it is used, and nowhere when another one has replaced it.
use strict;
use warnings FATAL => 'all';
no warnings 'portable';
use Digest::SHA qw(sha256_hex);
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'memory', shared_buffers => '1MB');
my $leader = $node->wait_for_leader;

if (!open my $memory, '<', "/proc/$leader/mem")
{
	$node->stop;
	plan skip_all => "the leader's memory cannot be read: $!";
}

# How often the second half of a key stands in what the leader can write to: freeing memory spoils the beginning.
sub copies
{
	my ($key) = @_;
	my $half = substr $key, length($key) / 2;
	my $n = 0;

	open my $maps, '<', "/proc/$leader/maps" or die "maps: $!";
	open my $memory, '<:raw', "/proc/$leader/mem" or die "mem: $!";
	while (<$maps>)
	{
		my ($from, $to) = /^(\w+)-(\w+) rw/ or next;
		my $text = '';

		sysseek $memory, hex $from, 0 or next;
		1 while length $text < hex($to) - hex($from)
			&& sysread $memory, $text, hex($to) - hex($from) - length $text, length $text;
		$n += () = $text =~ /\Q$half\E/g;
	}
	return $n;
}

# Calls of each kind.
sub call_provider
{
	my $worker = $node->spawn('p');

	$node->ends($worker, 'and ended');
	$node->reconcile(3);
	return;
}

$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'],
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 day"}')});
call_provider();
my $old = $provider->{key};
$node->until('a key that is used is there once', sub { copies($old) == 1 }) or diag(copies($old) . ' times');

my $new = join '', map { sprintf '%x', rand 16 } 1 .. 32;
my ($file) = $node->sql('SHOW gpu_orch.runpod_api_key_file');
umask 077;
append_to_file("$file.new", $new);
rename "$file.new", $file or die "rename: $!";
$provider->control(POST => 'key', {key => $new});
my $shown = substr sha256_hex($new), 0, 8;
$node->until('it is replaced', "SELECT DISTINCT key_fingerprint = '$shown' FROM gpu_orch.api_stats");
call_provider();
$node->until('the old key is nowhere', sub { copies($old) == 0 }) or diag(copies($old) . ' times');
$node->until('the new one once', sub { copies($new) == 1 }) or diag(copies($new) . ' times');
is($node->leader, $leader, 'in the same process');
$node->holds_invariants;
$node->stop;
done_testing();
