# gpu-orch-sweep: ends the pods of an installation whose database is gone, those alone, and believes
# neither one list nor the answer to a delete. Each case has a provider of its own; what takes its time
# between two lists runs side by side.
use strict;
use warnings;
use Cwd qw(abs_path);
use FindBin;
use lib $FindBin::Bin;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $program = $ENV{GPU_ORCH_SWEEP} // "$FindBin::Bin/../../cli/gpu-orch-sweep";
plan skip_all => "$program is not built" unless -x $program;

my $installation = '0123456789abcdef0123456789abcdef';
my $nonce = '0123456789abcdefghjkmnpqrs';
my $dir = abs_path(PostgreSQL::Test::Utils::tempdir());
my @said;
my @keys;

# A file with this content and mode; its path.
sub file
{
	my ($name, $content, $mode) = @_;

	append_to_file("$dir/$name", $content);
	chmod $mode // 0600, "$dir/$name" or die "chmod: $!";
	return "$dir/$name";
}

# Start a sweep with exactly these arguments.
sub start
{
	my %run = (out => '', err => '');

	$run{harness} = IPC::Run::start([ $program, @_ ], '<', \undef, '>', \$run{out}, '2>', \$run{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%run;
}

# Wait for a sweep; its exit status.
sub finish
{
	my $run = shift;

	$run->{harness}->finish;
	push @said, $run->{out}, $run->{err};
	return $run->{status} = $run->{harness}->result(0);
}

# A provider with these options and pods of ours of these names' nonces; the pods' ids in its "ours".
sub provider
{
	my ($options, @pods) = @_;
	my $provider = Provider->start(@$options);

	push @keys, $provider->{key};
	$provider->{key_file} = file("key" . @keys, "$provider->{key}\n");
	$provider->{ours} = [ map { make($provider, $_, { GPU_ORCH_INSTALLATION => $installation }) } @pods ];
	return $provider;
}

# Make a pod with our key, named after its epoch; its id.
sub make
{
	my ($provider, $epoch, $env) = @_;
	my $answer = HTTP::Tiny->new->post("http://$provider->{address}/v2/pods", {
		headers => { Authorization => "Bearer $provider->{key}" },
		content => encode_json({
			name => "gpo-01234567-$epoch-$nonce", image => 'image:1', $env ? (env => $env) : (),
			gpu => { id => 'NVIDIA L4', count => 2 } }) });

	die "create: $answer->{status} $answer->{content}" if $answer->{status} != 201;
	return decode_json($answer->{content})->{id};
}

# Start a sweep against a provider.
sub sweep
{
	my ($provider, @more) = @_;

	return start('--installation', $installation, '--api-key-file', $provider->{key_file},
		'--api-url', "http://$provider->{address}/v2", @more);
}

# Add rules as they stand in the simulator's document.
sub rules
{
	my ($provider, @rules) = @_;

	$provider->control(POST => 'faults', { add => \@rules });
	return $provider;
}

# What the ledger has of deletes, of one pod if it is given.
sub deletes
{
	my ($provider, $pod) = @_;

	return grep { $_->{op} eq 'delete' && (!defined $pod || $_->{pod} eq $pod) } @{ $provider->ledger->{entries} };
}

# The ids of all pods that live, in order.
sub living
{
	return join ' ', sort map { $_->{id} } grep { !defined $_->{deleted_at} } @{ $_[0]->ledger->{pods} };
}

# A sweep that must end with this status, leaving these pods alive.
sub ends
{
	my ($name, $run, $status, $provider, @left) = @_;

	is(finish($run), $status, "$name: exit status $status") or diag($run->{out}, $run->{err});
	is(living($provider), join(' ', sort @left), "$name: what lives") if $provider;
	return;
}

# ---- the cases, started side by side ----

# Others in the account: near misses of our name, our name with another's id, and someone at all.
my $mixed = provider([ '--paging', '--page-size', 2 ], 1, 2147483647);
push @{ $mixed->{ours} }, make($mixed, 3);
my @foreign = map { $mixed->control(POST => 'pods', $_)->{id} } (
	{ foreign => "gpo-01234567-1-$nonce", env => { GPU_ORCH_INSTALLATION => '0123456789abcdef0123456789abcdee' } },
	{ foreign => "gpo-01234568-1-$nonce" },
	{ foreign => "gpo-012345678-1-$nonce" },
	{ foreign => "gpo-01234567-1-${nonce}0" },
	{ foreign => "xgpo-01234567-1-$nonce" },
	{ foreign => 'gpo-01234567' },
	{ foreign => 'somebody-elses' });
rules($mixed, { call => 'list', action => 'overlap', cursor => JSON::PP::true });
my $dry_run = sweep($mixed);

my $empty_list = rules(provider([], 1, 2), { call => 'list', action => 'empty_list', nth => 2 });
my $kept_pod = rules(provider([], 1),
	{ call => 'delete', action => 'keep_pod', count => 1 }, { call => 'list', action => 'empty_list', nth => 3 });
my $lost_answers = provider([], 1, 2);
rules($lost_answers,
	{ pod => $lost_answers->{ours}[0], call => 'delete', action => 'status_after', status => 502, html => JSON::PP::true },
	{ pod => $lost_answers->{ours}[1], call => 'delete', action => 'drop_after' });
my $not_found = rules(provider([], 1), { call => 'delete', action => 'not_found', count => 1 });
my $server_error = rules(provider([], 1), { call => 'delete', action => 'status', status => 500, count => 1 });
my $throttled = rules(provider([], 1, 2, 3),
	{ call => 'delete', action => 'rate_limit', retry_after => 3, count => 1 },
	{ call => 'list', action => 'rate_limit', retry_after => 2, count => 1 });
my $lagging = rules(provider([], 1), { call => 'list', action => 'show_deleted', seconds => 7 });
my $stubborn = rules(provider([], 1), { call => 'delete', action => 'keep_pod' });
my $read_only = provider([], 1);
$read_only->control(POST => 'key', { read_only => JSON::PP::true });
my $no_list = provider([], 1);
rules($no_list, { call => 'list', action => 'status', status => 503, detail => "refused: $no_list->{key}" });
my $no_second_page = rules(provider([ '--paging', '--page-size', 1 ], 1, 2),
	{ call => 'list', action => 'status', status => 502, cursor => JSON::PP::true });
my $cut_list = rules(provider([], 1), { call => 'list', action => 'truncate' });
my $no_second_list = rules(provider([], 1), { call => 'list', action => 'status', status => 500, skip => 1 });
my $only_others = provider([]);
my $other = $only_others->control(POST => 'pods', { foreign => 'somebody-elses' })->{id};
my $nobody = provider([]);

my %runs = (
	empty_list => sweep($empty_list, '--delete'),
	kept_pod => sweep($kept_pod, '--delete'),
	lost_answers => sweep($lost_answers, '--delete'),
	not_found => sweep($not_found, '--delete'),
	server_error => sweep($server_error, '--delete'),
	throttled => sweep($throttled, '--delete'),
	lagging => sweep($lagging, '--delete'),
	stubborn => sweep($stubborn, '--delete', '--wait', 15),
	read_only => sweep($read_only, '--delete', '--wait', 20),
	no_list => sweep($no_list, '--delete', '--wait', 5),
	no_second_page => sweep($no_second_page, '--delete', '--wait', 5),
	cut_list => sweep($cut_list, '--delete', '--wait', 5),
	no_second_list => sweep($no_second_list, '--delete', '--wait', 20),
	dry_no_list => sweep($no_list, '--wait', 5),
	only_others => sweep($only_others, '--delete'),
	nobody => sweep($nobody, '--delete'));

# ---- the command line and the key file ----

my @good_key = ('--api-key-file', file('good', 'rpa_good'));
my @good_id = ('--installation', $installation);
my $usage = qr/Try "gpu-orch-sweep --help"/;
push @keys, 'rpa_good';

for my $id ('', '01234567', substr($installation, 1), $installation . '0', uc $installation, "gpo-$installation", '*')
{
	my $run = start('--installation', $id, @good_key, '--delete');

	ends("installation \"$id\"", $run, 2);
	like($run->{err}, qr/32 lower-case hex digits.*GPU_ORCH_INSTALLATION/, 'and it says what is wanted, and where it is');
}
for my $case (
	[ 'no installation', @good_key ],
	[ 'no key file', @good_id ],
	[ 'an argument too many', @good_id, @good_key, 'more' ],
	[ 'an unknown option', @good_id, @good_key, '--force' ],
	[ 'no time', @good_id, @good_key, '--wait', '0' ],
	[ 'a time that is none', @good_id, @good_key, '--wait', '5m' ],
	map { [ "the URL $_", @good_id, @good_key, '--api-url', $_ ] }
		('http://api.example', 'ftp://127.0.0.1/v2', 'https://me:rpa_good2@api.example/v2', 'https://api.example/v2?a=b', 'v2'))
{
	my ($name, @arguments) = @$case;
	my $run = start(@arguments, '--delete');

	ends($name, $run, 2);
	like($run->{err}, $usage, 'and it says where to look');
}
for my $option ('--help', '--version')
{
	my $run = start($option);

	ends($option, $run, 0);
	like($run->{out}, $option eq '--help' ? qr/replaces them/ : qr/^gpu-orch-sweep \d+\.\d+/, 'and it says so');
}

symlink "$dir/good", "$dir/link" or die "symlink: $!";
mkdir "$dir/folder", 0700 or die "mkdir: $!";
for my $case (
	[ 'mode 0644', file('open', 'rpa_open', 0644), qr/chmod it to 0600/ ],
	[ 'mode 0620', file('group', 'rpa_group', 0620), qr/chmod it to 0600/ ],
	[ 'no file', "$dir/none", qr/No such file/ ],
	[ 'a link', "$dir/link", qr/symbolic link/ ],
	[ 'a folder', "$dir/folder", qr/not a regular file/ ],
	[ 'an empty file', file('empty', " \r\n"), qr/it is empty/ ],
	[ 'a line too many', file('lines', "rpa_lines\nX-Header: 1"), qr/other bytes/ ],
	[ 'a large file', file('large', 'rpa_large' x 1000), qr/larger/ ])
{
	my ($name, $path, $says) = @$case;
	my $run = start(@good_id, '--api-key-file', $path, '--delete');

	ends("key file: $name", $run, 2);
	like($run->{err}, $says, 'and it says why');
}
push @keys, qw(rpa_open rpa_group rpa_lines rpa_large);

my $wrong_key = start(@good_id, @good_key, '--api-url', "http://$nobody->{address}/v2", '--delete');
ends('wrong key', $wrong_key, 3);
like($wrong_key->{err}, qr/HTTP 401; is the key right/, 'and it says so');

# ---- what became of the cases ----

ends('dry run', $dry_run, 0, $mixed, @foreign, @{ $mixed->{ours} });
is(scalar deletes($mixed), 0, 'no delete was sent');
like($dry_run->{out}, qr/^\Q$_\E +gpo-01234567-\d+-$nonce +[A-Z]+ +2 x NVIDIA L4 +\d\.\d+ \$\/h +\d+m\d\ds$/m, 'a pod of ours is shown')
	for @{ $mixed->{ours} };
is(scalar(split /\n/, $dry_run->{out}), 4, 'once each, and nothing of the others');
my $price = 0;
$price += $_->{cost_per_hour} for grep { !$_->{foreign} } @{ $mixed->ledger->{pods} };
like($dry_run->{out}, qr/^pods of this installation: 3, \Q${\ sprintf '%.4f', $price}\E \$\/h; of others, not touched: 7$/m, 'the sums');
my $for_real = sweep($mixed, '--delete');

ends('an empty list between full ones', $runs{empty_list}, 0, $empty_list);
is(scalar deletes($empty_list), 2, 'each pod was asked to end once');
ends('a pod that lives on behind 204, and an empty list', $runs{kept_pod}, 0, $kept_pod);
is(scalar deletes($kept_pod), 2, 'it was asked twice');
ends('answers that do not say that the pod is gone', $runs{lost_answers}, 0, $lost_answers);
is(scalar(grep { $_->{executed} } deletes($lost_answers)), 2, 'both deletes took effect');
is(scalar deletes($lost_answers, $lost_answers->{ours}[0]), 1, 'a pod that no list shows is not asked again');
ends('404 though it lives', $runs{not_found}, 0, $not_found);
is(scalar deletes($not_found), 2, '404 proved nothing');
ends('500 and it lives', $runs{server_error}, 0, $server_error);
is(scalar deletes($server_error), 2, 'it was asked again');
ends('a list that lags', $runs{lagging}, 0, $lagging);

ends('throttled', $runs{throttled}, 0, $throttled);
like($runs{throttled}{err}, qr/HTTP 429; may be tried again in 2 s/, 'a list waits as long as the provider wants');
my @asked = map { $_->{at} } deletes($throttled);
cmp_ok($asked[1] - $asked[0], '>=', 3, 'so do deletes');

ends('a pod that will not end', $runs{stubborn}, 1, $stubborn, @{ $stubborn->{ours} });
like($runs{stubborn}{err}, qr/not proved gone: $stubborn->{ours}[0] gpo-01234567-1-$nonce$/m, 'it is named');
ends('a key that may not delete', $runs{read_only}, 1, $read_only, @{ $read_only->{ours} });
like($runs{read_only}{out}, qr/delete answered with HTTP 403/, 'the answer is shown');
like($runs{read_only}{err}, qr/not proved gone: $read_only->{ours}[0] /, 'the pod is named');

for my $case (
	[ 'no list', 'no_list', $no_list ],
	[ 'no list, dry run', 'dry_no_list', $no_list ],
	[ 'a list without its second page', 'no_second_page', $no_second_page ],
	[ 'a list that is cut off', 'cut_list', $cut_list ],
	[ 'one list, then none', 'no_second_list', $no_second_list ])
{
	my ($name, $run, $provider) = @$case;

	ends($name, $runs{$run}, 3, $provider, @{ $provider->{ours} });
	is(scalar deletes($provider), 0, 'no delete was sent');
	like($runs{$run}{err}, qr/the list of pods cannot be read.*giving up/s, 'and it says why');
}

ends('nothing of ours', $runs{only_others}, 0, $only_others, $other);
like($runs{only_others}{out}, qr/^pods of this installation: 0, 0\.0000 \$\/h; of others, not touched: 1$/, 'the sums');
ends('nothing at all', $runs{nobody}, 0, $nobody);
like($runs{nobody}{out}, qr/key of the right account/, 'that is suspicious');

ends('ours among others', $for_real, 0, $mixed, @foreign);
is(scalar deletes($mixed, $_), 1, 'a pod of ours was asked to end once') for @{ $mixed->{ours} };
is(scalar deletes($mixed), 3, 'and nobody else was');

my $all = join '', @said;
is(scalar(grep { index($all, $_) >= 0 } @keys), 0, 'no key is in any output');

done_testing();
