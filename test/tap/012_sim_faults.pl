# runpod-sim: that each fault and each choice does what docs/runpod-sim.md says, that the ledger tells all
# of it, and that a run repeats. Tests are named after the rows there; what is always so is in 010_sim.pl.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;
use IO::Socket::INET;
use JSON::PP;
use Simulator;
use Test::More;

# A request that is sent and whose answer is not waited for; returns its socket.
sub send_only
{
	my ($line, $body) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $address, Timeout => 30) or die "connect: $!";

	print $socket bytes($line, defined $body ? encode_json($body) : '', 'User-Agent: x', 'Connection: close');
	return $socket;
}

# What comes from a socket until its end.
sub rest_of { my ($socket) = @_; local $/; return scalar <$socket> // ''; }

# Delete a pod, and do not try again where no answer comes; returns the bytes of the answer.
sub remove_once { my ($id) = @_; return raw(bytes("DELETE /v2/pods/$id", '', 'User-Agent: x')); }

# A list of the account's requests, oldest first.
sub requests { return @{ control(GET => '/_sim/ledger?requests=true')->{requests} }; }

# Does the simulator's port accept a connection?
sub is_open { return defined IO::Socket::INET->new(PeerAddr => $address, Timeout => 30); }

my $sim = start_sim('--seed', 7, '--boot-seconds', 60);

subtest 'create with faults' => sub {
	my $count = scalar @{ ledger()->{entries} };

	# name, rule, status, text, pods made
	my @cases = (
		[ 'C11: no capacity', { action => 'no_capacity' }, 400, $capacity, 0 ],
		[ 'C11: for this GPU', { action => 'no_capacity', match => { gpu => 'NVIDIA GeForce*' } }, 400, $capacity, 0 ],
		[ 'C11: not for that one', { action => 'no_capacity', gpu => 'NVIDIA L4' }, 201, undef, 1 ],
		[ 'C13: no money', { action => 'no_balance' }, 402, qr/balance is too low/, 0 ],
		[ 'C14: forbidden', { action => 'forbidden', cloud => 'SECURE' }, 403, 'access denied', 0 ],
		[ 'C15: no such image', { action => 'bad_image', image => 'image:*' }, 422, qr/image/, 0 ],
		[ 'C16: 502 after the effect', { action => 'status_after', status => 502 }, 502, qr/./, 1 ],
		[ 'C16: 500 in HTML after the effect', { action => 'status_after', html => JSON::PP::true }, 500, undef, 1 ],
		[ 'C16: dropped after the effect', { action => 'drop_after' }, 599, undef, 1 ],
		[ 'C16: reset after the effect', { action => 'reset_after' }, 599, undef, 1 ],
		[ 'C17: no capacity after the effect', { action => 'no_capacity_after' }, 400, $capacity, 1 ],
		[ 'C18: 503 before it', { action => 'status', params => { status => 503 } }, 503, qr/./, 0 ],
		[ 'C18: dropped before it', { action => 'drop' }, 599, undef, 0 ],
		[ 'C18: reset before it', { action => 'reset' }, 599, undef, 0 ],
		[ 'T6: too many requests', { action => 'rate_limit' }, 429, 'rate limit exceeded for the minute window', 0 ],
		[ 'T7: half an answer', { action => 'truncate' }, 201, undef, 1 ],
		[ 'T9: a key that is refused', { action => 'unauthorized' }, 401, 'missing bearer token', 0 ],
	);
	for my $case (@cases)
	{
		my ($name, $rule, $expected, $text, $made) = @$case;

		fault({ call => 'create', %$rule });
		my ($status, $json, $answer) = call(POST => '/v2/pods', wish(name => $name));
		is($status, $expected, $name);
		ref $text ? like($json->{detail}, $text, "$name: the text") : is($json->{detail}, $text, "$name: the text")
		  if defined $text;
		no_fault();
		my @pods = @{ (call(GET => '/v2/pods'))[1]{pods} };
		is(scalar(grep { $_->{name} eq $name } @pods), $made, "$name: $made made");
		my @entries = @{ ledger()->{entries} };
		is(scalar(@entries), ++$count, "$name: one line in the ledger");
		my $line = $entries[-1];
		is($line->{executed} ? 1 : 0, $made, "$name: which says whether it took effect");
		is($line->{status}, $expected == 599 ? 0 : $expected, "$name: and what was answered");
		is($line->{fault}, $expected == 201 && $rule->{action} ne 'truncate' ? undef : $rule->{action}, "$name: and why");
		is($line->{name}, $name, "$name: and for what");
		is($line->{pod}, $made ? $pods[0]{id} : undef, "$name: and which pod it is");
	}

	fault({ call => 'create', action => 'no_capacity', count => 2, skip => 1 });
	is_deeply([ map { (call(POST => '/v2/pods', wish()))[0] } 1 .. 4 ], [ 201, 400, 400, 201 ], 'C11: after one call, for two calls');
	is_deeply([ map { [ @$_{qw(seen hits)} ] } @{ control(GET => '/_sim/faults')->{faults} } ], [ [ 4, 2 ] ], 'the rule counts');
	no_fault();
	fault({ match => { call => 'create', nth => 2 }, action => 'no_capacity' });
	is_deeply([ map { (call(POST => '/v2/pods', wish()))[0] } 1 .. 3 ], [ 201, 400, 201 ], 'C11: for the second call');
	no_fault();
	fault({ call => 'create', action => 'no_capacity', for => 600 });
	is((call(POST => '/v2/pods', wish()))[0], 400, 'C11: until a time');
	advance(601);
	is((call(POST => '/v2/pods', wish()))[0], 201, 'C11: and no longer');
	no_fault();
	control(POST => '/_sim/stock', { gpu => 'NVIDIA L4', data_center => 'AP-JP-1', level => 'NONE' });
	is((call(POST => '/v2/pods', wish(gpu => { id => 'NVIDIA L4', count => 1 }, dataCenterIds => ['AP-JP-1'])))[0], 400, 'C11: in one data centre');
	is((call(POST => '/v2/pods', wish(gpu => { id => 'NVIDIA L4', count => 1 }, dataCenterIds => [ 'AP-JP-1', 'US-TX-3' ])))[0], 201, 'C11: and not in another');
	fault({ call => 'create', action => 'no_capacity' });
	my $gpus = (call(GET => '/v2/catalog/gpus?include=AVAILABILITY&product=POD'))[1]{gpus};
	is((grep { $_->{id} eq 'NVIDIA GeForce RTX 4090' } @$gpus)[0]{availability}, 'HIGH', 'C12: the catalog says HIGH');
	is((call(POST => '/v2/pods', wish()))[0], 400, 'C12: and yet there is nothing');
	no_fault();

	control(POST => '/_sim/balance', { balance => 0.5 });
	my ($status, $json) = call(POST => '/v2/pods', wish());
	is($status, 402, 'C13: an hour must be paid for');
	control(POST => '/_sim/balance', { balance => 1000 });
	is((call(POST => '/v2/pods', wish()))[0], 201, 'C13: until credit is added');

	fault({ call => 'create', action => 'delay', seconds => 0.2 }, { call => 'create', action => 'drop_after' });
	is((call(POST => '/v2/pods', wish(name => 'slow')))[0], 599, 'C19: held back, then dropped');
	is_deeply([ @{ ledger()->{entries}[-1] }{qw(name status executed)} ], [ 'slow', 0, JSON::PP::true ], 'C19: and executed');
	no_fault();
	my $socket = IO::Socket::INET->new(PeerAddr => $address);
	fault({ call => 'create', action => 'delay', seconds => 3600 });
	print $socket bytes('POST /v2/pods', encode_json(wish(name => 'impatient')), 'User-Agent: x');
	ok(wait_until(sub { grep { $_->{name} eq 'impatient' } @{ ledger()->{pods} } }), 'C19: it takes effect before the answer');
	no_fault();
	fault({ call => 'create', action => 'delay_before', seconds => 3600 });
	my $other = IO::Socket::INET->new(PeerAddr => $address);
	print $other bytes('POST /v2/pods', encode_json(wish(name => 'later')), 'User-Agent: x');
	ok(wait_until(sub { control(GET => '/_sim/faults')->{faults}[0]{hits} == 1 }), 'C19: or is held back before');
	is(scalar(grep { $_->{name} eq 'later' } @{ ledger()->{pods} }), 0, 'C19: and then nothing is made yet');
	no_fault();
	close $socket;
	close $other;

	fault({ call => 'create', action => 'alter', set => { cost => 0, dataCenterId => 'XX-1', status => 'MOVING', more => 1, runtime => {} }, remove => ['gpu'] });
	my $odd = create();
	is_deeply([ @$odd{qw(cost dataCenterId)} ], [ 0, 'XX-1' ], 'C20: an answer that is not so');
	is_deeply([ @$odd{qw(status more)} ], [ 'MOVING', 1 ], 'L14: with a status and a key that nobody knows');
	is_deeply([ $odd->{runtime}, exists $odd->{gpu} ? 1 : 0 ], [ {}, 0 ], 'C20: with a runtime too early and no GPU');
	no_fault();
	is(get($odd->{id})->{cost}, 0.74, 'C20: which is not true');
	fault({ call => 'list', action => 'alter', id => $odd->{id}, set => { status => 'MOVING', gpu => { id => 'NVIDIA B200', count => 8 } }, remove => ['cost'] });
	my ($shown) = grep { $_->{id} eq $odd->{id} } @{ (call(GET => '/v2/pods'))[1]{pods} };
	is_deeply([ $shown->{gpu}{id}, exists $shown->{cost} ? 1 : 0 ], [ 'NVIDIA B200', 0 ], 'C20: another GPU in a list, and no cost');
	is($shown->{status}, 'MOVING', 'L14: in a list');
	no_fault();
	remove($_) for listed();
};

subtest 'the wire' => sub {
	my @first = raw(
		bytes('GET /v2/pods', '', 'User-Agent: x'),
		bytes('POST /v2/pods', encode_json(wish(name => 'kept')), 'User-Agent: x'));
	is(scalar(grep { /^HTTP\/1.1 20[01]/ } @first), 2, 'a connection serves many requests');

	fault({ call => 'create', action => 'close_reused' });
	is((call(POST => '/v2/pods', wish(name => 'fresh')))[0], 201, 'a fresh connection is left alone');
	my @second = raw(
		bytes('GET /v2/pods', '', 'User-Agent: x'),
		bytes('POST /v2/pods', encode_json(wish(name => 'reused')), 'User-Agent: x'));
	is($second[1], '', 'C16: a reused one closes without an answer');
	is(scalar(grep { $_->{name} eq 'reused' } @{ ledger()->{pods} }), 1, 'C16: after the pod was made');
	no_fault();

	my ($status, $json, $answer);
	fault({ call => 'list', action => 'rate_limit', retry_after => 7 });
	($status, $json, $answer) = call(GET => '/v2/pods');
	is_deeply([ $status, $answer->{headers}{'retry-after'} ], [ 429, 7 ], 'T6: come again in seconds');
	like($answer->{headers}{ratelimit}, qr/r=0;t=7/, 'T6: the window is used up');
	no_fault();
	fault({ call => 'list', action => 'rate_limit', retry_after => undef, rate_limit => '"minute";r=0;t=60, "hour";r=0;t=1800' });
	($status, $json, $answer) = call(GET => '/v2/pods');
	ok(!exists $answer->{headers}{'retry-after'}, 'T6: without saying when');
	is($answer->{headers}{ratelimit}, '"minute";r=0;t=60, "hour";r=0;t=1800', 'T6: with two windows');
	no_fault();
	fault({ call => 'list', action => 'rate_limit', retry_after => 'soon' });
	is((call(GET => '/v2/pods'))[2]{headers}{'retry-after'}, 'soon', 'T6: or with nonsense');
	no_fault();
	for my $code (500, 502, 503, 504)
	{
		fault({ call => 'list', action => 'status', status => $code });
		($status, $json, $answer) = call(GET => '/v2/pods');
		is_deeply([ $status, $json->{status} ], [ $code, $code ], "T7: $code");
		no_fault();
		fault({ call => 'list', action => 'status', status => $code, html => JSON::PP::true });
		($status, $json, $answer) = call(GET => '/v2/pods');
		is($status, $code, "T7: $code in HTML");
		like($answer->{content}, qr/^<html>/, "T7: $code in HTML, indeed");
		no_fault();
	}
	fault({ call => 'list', action => 'status_after', status => 200, html => JSON::PP::true });
	($status, $json, $answer) = call(GET => '/v2/pods');
	is_deeply([ $status, $json, $answer->{headers}{'content-type'} ], [ 200, undef, 'text/html' ], 'T7: 200 with HTML');
	no_fault();
	fault({ call => 'list', action => 'truncate', bytes => 10 });
	($status, $json, $answer) = call(GET => '/v2/pods');
	is_deeply([ $status, $json, length $answer->{content} ], [ 200, undef, 10 ], 'T7: 200 with a piece of JSON');
	no_fault();

	fault({ call => 'list', action => 'drip', bytes => 300, interval => 0.02 });
	($status, $json, $answer) = call(GET => '/v2/pods');
	ok($status == 200 && @{ $json->{pods} } == 3, 'T8: a slow body is whole at last');
	no_fault();
	fault({ call => 'list', action => 'stall', seconds => 0.2 });
	my $stalled = raw(bytes('GET /v2/pods', '', 'User-Agent: x'));
	like($stalled, qr/^HTTP\/1.1 200 .*\r\n\r\n$/s, 'T8: headers, and nothing more');
	no_fault();
	fault({ call => 'list', action => 'delay', seconds => 0.2 }, { call => 'list', action => 'drop' });
	is(raw(bytes('GET /v2/pods', '', 'User-Agent: x')), '', 'T8: silence');
	no_fault();

	control(POST => '/_sim/key', { revoke => JSON::PP::true });
	is((call(GET => '/v2/pods'))[0], 401, 'T9: a revoked key');
	control(POST => '/_sim/key', { key => 'rpa_next' });
	is((call(GET => '/v2/pods'))[0], 401, 'T9: the old one remains so');
	is((call(GET => '/v2/pods', undef, Authorization => 'Bearer rpa_next'))[0], 200, 'T9: the next one works');
	control(POST => '/_sim/key', { key => $key, read_only => JSON::PP::true });
	my @ids = listed();
	is_deeply([ (call(POST => '/v2/pods', wish()))[0], remove($ids[0]), scalar(@ids) ], [ 403, 403, 3 ], 'T9: a key that may only read');
	control(POST => '/_sim/key', { read_only => JSON::PP::false });

	for my $bad ({ action => 'nonsense' }, { action => 'drop', colour => 'red' }, { action => 'drop', match => { gpus => 1 } }, { call => 'list' })
	{
		is((call(POST => '/_sim/faults', { add => [ { action => 'drop' }, $bad ] }))[0], 400, 'a rule that makes no sense is refused');
	}
	is_deeply(control(GET => '/_sim/faults')->{faults}, [], 'with those that came along');
	fault({ name => 'a', action => 'drop' }, { name => 'b', action => 'drop' });
	control(POST => '/_sim/faults', { clear => ['a'] });
	is_deeply([ map { $_->{name} } @{ control(GET => '/_sim/faults')->{faults} } ], ['b'], 'a rule is cleared by its name');
	no_fault();
	remove($_) for listed();
};

subtest 'answers that are held back' => sub {
	fault({ call => 'create', action => 'delay', seconds => 25, jitter => 35 });
	my $socket = send_only('POST /v2/pods', wish(name => 'held'));
	ok(wait_until(sub { entry_of('held') }), 'C19: a create takes effect');
	is((requests())[-1]{outcome}, undef, 'C19: and is not answered');
	is(line_of(entry_of('held')->{pod})->{create_outcome}, undef, 'C19: which the pod\'s line says');
	advance(24);
	is((requests())[-1]{outcome}, undef, 'C19: not after 24 s');
	advance(36);
	like(rest_of($socket), qr/^HTTP\/1.1 201 /, 'C19: but after 60 s at the latest');
	ok(wait_until(sub { line_of(entry_of('held')->{pod})->{create_outcome} }), 'C19: then it is over');
	is_deeply([ @{ line_of(entry_of('held')->{pod}) }{qw(create_status create_outcome)} ], [ 201, 'answered' ], 'C19: and was answered');
	$socket = send_only('POST /v2/pods', wish(name => 'left'));
	ok(wait_until(sub { entry_of('left') }), 'C19: another create takes effect');
	close $socket;
	advance(60);
	ok(wait_until(sub { line_of(entry_of('left')->{pod})->{create_outcome} }), 'C19: its client is gone');
	is(line_of(entry_of('left')->{pod})->{create_outcome}, 'broken', 'C19: and never heard of it');
	no_fault();

	fault({ call => 'create', action => 'delay_before', seconds => 30 });
	$socket = send_only('POST /v2/pods', wish(name => 'late'));
	ok(wait_until(sub { control(GET => '/_sim/faults')->{faults}[0]{hits} == 1 }), 'C19: a create that takes effect late has come');
	ok(!entry_of('late'), 'C19: and has no effect yet');
	advance(30);
	like(rest_of($socket), qr/^HTTP\/1.1 201 /, 'C19: later it has');
	no_fault();

	fault({ call => 'list', action => 'delay', seconds => 3600 }, { call => 'list', action => 'drop' });
	$socket = send_only('GET /v2/pods');
	ok(wait_until(sub { (requests())[-1]{call} eq 'list' }), 'T8: a list has come');
	is((requests())[-1]{outcome}, undef, 'T8: and all is silent');
	advance(3600);
	is(rest_of($socket), '', 'T8: until the connection ends');
	no_fault();
	fault({ call => 'list', action => 'stall' });
	$socket = send_only('GET /v2/pods');
	like(scalar <$socket>, qr/^HTTP\/1.1 200 /, 'T8: headers come');
	advance(3600);
	unlike(rest_of($socket), qr/pods/, 'T8: and then nothing');
	no_fault();
	remove($_) for listed();
};

subtest 'effects that come later' => sub {
	my $yes = JSON::PP::true;
	my $no = JSON::PP::false;

	# name, rules beside "later", the answer
	my @cases = (
		[ 'C16: 504 now, the pod later', [], 504 ],
		[ 'C16: 502 now, the pod later', [ { action => 'status', status => 502 } ], 502 ],
		[ 'C16: dropped now, the pod later', [ { action => 'drop' } ], 599 ],
		[ 'C17: no capacity now, the pod later', [ { action => 'no_capacity' } ], 400 ],
	);
	for my $case (@cases)
	{
		my ($name, $rules, $status) = @$case;

		fault(map { { call => 'create', %$_ } } { action => 'later', seconds => 100 }, @$rules);
		is((call(POST => '/v2/pods', wish(name => $name)))[0], $status, $name);
		no_fault();
		is(entry_of($name)->{executed}, $no, "$name: nothing at first");
		advance(50);
		is(scalar(listed()), 0, "$name: nor soon");
		advance(51);
		my $entry = entry_of($name);
		is_deeply([ $entry->{executed}, listed() ], [ $yes, $entry->{pod} ], "$name: then it is there");
		near($entry->{executed_at}, line_of($entry->{pod})->{created_at}, "$name: and bills from then on");
		ok(abs($entry->{executed_at} - $entry->{at} - 100) < 1, "$name: when it was due");
		is(line_of($entry->{pod})->{create_status}, $status == 599 ? 0 : $status, "$name: the ledger knows what was answered");
		remove($entry->{pod});
	}
	fault({ call => 'create', action => 'later', seconds => 100 }, { call => 'create', action => 'delay', seconds => 30 });
	my $socket = send_only('POST /v2/pods', wish(name => 'both'));
	ok(wait_until(sub { entry_of('both') }), 'C16: a create that is held back');
	advance(30);
	like(rest_of($socket), qr/^HTTP\/1.1 504 /, 'C16: is answered');
	no_fault();
	is(scalar(listed()), 0, 'C16: before anything was made');
	advance(100);
	is(scalar(listed()), 1, 'C16: and takes effect afterwards');
	remove($_) for listed();

	fault({ call => 'create', action => 'later', seconds => 10 });
	call(POST => '/v2/pods', wish(name => 'nowhere', dataCenterIds => ['XX-1']));
	no_fault();
	advance(10);
	is_deeply([ entry_of('nowhere')->{executed}, listed() ], [$no], 'C18: what cannot be made is not made later either');

	my $pod = create(name => 'lingers');
	fault({ call => 'delete', action => 'later', seconds => 100, count => 1 });
	is(remove($pod->{id}), 204, 'G6: a delete says that it worked');
	is_deeply([ listed() ], [ $pod->{id} ], 'G6: and the pod lives');
	advance(100);
	is_deeply([ listed() ], [], 'G6: for a while');
	is(line_of($pod->{id})->{ended_by}, 'delete', 'G6: it was our delete that ended it');
	ok(line_of($pod->{id})->{billed} > 100 / 3600 * 0.74, 'G6: and it was billed until then');
	no_fault();
	$pod = create(name => 'timed out');
	fault({ call => 'delete', action => 'drop_after', count => 1 });
	is(remove_once($pod->{id}), '', 'G6: a delete without an answer');
	is(remove($pod->{id}), 404, 'G6: after which the pod is gone');
	no_fault();
};

subtest 'bodies' => sub {
	my ($status, $json, $answer);

	create();
	fault({ call => 'list', action => 'malformed' });
	($status, $json, $answer) = call(GET => '/v2/pods');
	is_deeply([ $status, $json, $answer->{headers}{'content-type'} ], [ 200, undef, 'application/json' ], 'T7: 200 and no JSON');
	no_fault();
	for my $body ('', 'null', '[]', '{"pods": null}', '{"pods": [1, null, {}]}', '{"pods": [{"id": 7}]}')
	{
		fault({ call => 'list', action => 'malformed', body => $body });
		is((call(GET => '/v2/pods'))[2]{content}, $body, "T7: 200 with \"$body\"");
		no_fault();
	}
	fault({ call => 'list', action => 'malformed', body => { pods => 'none' } });
	is_deeply((call(GET => '/v2/pods'))[1], { pods => 'none' }, 'T7: or with JSON of another form');
	no_fault();
	fault({ call => 'list', action => 'huge' });
	($status, $json, $answer) = call(GET => '/v2/pods');
	ok(length $answer->{content} > 16 * 1024 * 1024, 'T7: a body of more than 16 MiB');
	is(scalar(@{ $json->{pods} }), 1, 'T7: which is right in all else');
	no_fault();
	fault({ call => 'list', action => 'huge', bytes => 5000 }, { call => 'list', action => 'status', status => 502 });
	($status, $json, $answer) = call(GET => '/v2/pods');
	is_deeply([ $status, $json->{status}, length $json->{padding} ], [ 502, 502, 5000 ], 'T7: a long body of an error');
	no_fault();
	fault({ call => 'list', action => 'deep' });
	($status, $json, $answer) = call(GET => '/v2/pods');
	like(substr($answer->{content}, 0, 100), qr/^\{"nested":\[{80}/, 'T7: a body that is nested deeply');
	is(($answer->{content} =~ tr/]//) >= 100000, 1, 'T7: very deeply');
	no_fault();
	fault({ call => 'list', action => 'deep', levels => 10 });
	is_deeply((call(GET => '/v2/pods'))[1]{nested}, [ [ [ [ [ [ [ [ [ [] ] ] ] ] ] ] ] ] ], 'T7: or a little');
	no_fault();
	fault({ call => 'create', action => 'malformed' }, { call => 'create', action => 'drip', bytes => 20, interval => 0.01 });
	is_deeply([ (call(POST => '/v2/pods', wish(name => 'slowly')))[ 0, 1 ] ], [ 201, undef ], 'T8: a slow body that is no JSON');
	no_fault();
	is(entry_of('slowly')->{executed}, JSON::PP::true, 'C16: of a create that took effect');
	remove($_) for listed();
};

subtest 'lists' => sub {
	my $old = create(name => 'old')->{id};
	advance(1000);
	my $new = create(name => 'new')->{id};
	fault({ call => 'list', action => 'late_list', seconds => 600, for => 3000 });
	remove($old);
	is_deeply([ listed() ], [$old], 'G4: a list of ten minutes ago');
	advance(600);
	is_deeply([ listed() ], [$new], 'G4: ten minutes later');
	my $short = create()->{id};
	remove($short);
	is_deeply([ listed() ], [$new], 'G4: what lived in between is never seen');
	advance(2400);
	my $now = create()->{id};
	is_deeply([ listed() ], [ $now, $new ], 'G4: while the rule lasts');
	no_fault();

	create(name => "many$_") for 1 .. 18;
	fault({ call => 'list', action => 'patchy_list', missing => 0.5, count => 2 });
	my @first = listed();
	my @second = listed();
	ok(@first > 0 && @first < 20 && @second > 0 && @second < 20, 'G3: lists with gaps');
	isnt("@first", "@second", 'G3: each with others');
	is(scalar(listed()), 20, 'G3: and then none');
	no_fault();
	remove($_) for listed();
};

subtest 'pods' => sub {
	my $act = sub { my ($pod, $action) = @_; return (call(POST => "/v2/pods/$pod->{id}/action", { action => $action }))[ 0, 1 ]; };
	my $port = sub { my ($id) = @_; return get($id)->{runtime}{ports}[0]; };

	fault({ call => 'create', action => 'slow_boot', seconds => 500 });
	my $pod = create(ports => ['22/tcp']);
	no_fault();
	advance(499);
	is(get($pod->{id})->{status}, 'STARTING', 'L1: a pod that boots slowly');
	advance(1);
	is(get($pod->{id})->{status}, 'RUNNING', 'L1: boots');
	advance(10);
	my $before = $port->($pod->{id});
	fault({ call => 'action', action => 'stale_ports', seconds => 90 });
	$act->($pod, 'restart');
	no_fault();
	advance(510);
	is_deeply($port->($pod->{id}), $before, 'L15: a port that is no longer right');
	advance(90);
	isnt($port->($pod->{id})->{public}, $before->{public}, 'L15: for a while');

	my $spent = sub { return (call(POST => '/graphql', { query => '{myself{currentSpendPerHr}}' }))[1]{data}{myself}{currentSpendPerHr}; };
	near($spent->(), 0.74, 'L10: a pod that runs is paid for');
	$act->($pod, 'stop');
	ok($spent->() > 0 && $spent->() < 0.01, 'L10: one that was stopped pays for its disk');
	fault({ call => 'action', action => 'host_taken', count => 1 });
	my ($status, $json) = $act->($pod, 'start');
	is_deeply([ $status, $json->{detail} ], [ 400, 'There are not enough free GPUs on the host machine to start this pod.' ],
		'L10: its host may be taken');
	no_fault();
	fault({ call => 'action', action => 'no_gpus', count => 1 });
	($status, $json) = $act->($pod, 'start');
	is($status, 200, 'L10: or it starts');
	no_fault();
	advance(500);
	is_deeply([ get($pod->{id})->{status}, get($pod->{id})->{gpu}{count} ], [ 'RUNNING', 0 ], 'L10: without a GPU');
	is(line_of($pod->{id})->{count}, 1, 'L10: though it pays for one');
	$act->($pod, 'restart');
	is(get($pod->{id})->{gpu}{count}, 1, 'L10: until it starts again');

	fault({ call => 'create', action => 'no_ip' });
	$pod = create(ports => ['22/tcp'], cloud => 'COMMUNITY');
	no_fault();
	advance(1000);
	is_deeply([ $port->($pod->{id})->{ip}, get($pod->{id})->{ssh}{direct} ], [ undef, undef ], 'L15: a pod without an address');

	fault({ call => 'create', action => 'exit', seconds => 0 });
	$pod = create(disk => 73);
	no_fault();
	advance(1);
	$before = line_of($pod->{id})->{billed};
	advance(36000);
	ok(abs(line_of($pod->{id})->{billed} - $before - 0.1) < 0.001, 'L7: the disk of an EXITED pod is billed') or diag($before);

	fault({ call => 'create', action => 'status_after', status => 500, count => 1 });
	call(POST => '/v2/pods', wish(name => 'ghost'));
	no_fault();
	advance(3600);
	ok(line_of(entry_of('ghost')->{pod})->{billed} >= 0.74, 'C16: a ghost is billed');
	remove($_) for listed();
};

subtest 'one pool' => sub {
	my $env = { GPU_ORCH_POOL => 'blue' };

	fault({ call => 'create', match => { pool => 'bl*' }, action => 'forbidden' });
	is((call(POST => '/v2/pods', wish(env => $env)))[0], 403, 'C14: one pool is forbidden');
	is((call(POST => '/v2/pods', wish(env => { GPU_ORCH_POOL => 'red' })))[0], 201, 'C14: another is not');
	is((call(POST => '/v2/pods', wish()))[0], 201, 'C14: nor is what has none');
	no_fault();
	fault({ match => { call => 'create', name => 'blue-*' }, action => 'forbidden' });
	is_deeply([ map { (call(POST => '/v2/pods', wish(name => $_)))[0] } 'blue-1', 'red-1' ], [ 403, 201 ], 'C14: by the name of the pod');
	no_fault();
	my $pod = create(env => $env);
	fault({ call => 'delete', match => { pool => 'blue' }, action => 'status' });
	is(remove($pod->{id}), 500, 'C14: a rule for a pool knows its pods');
	no_fault();
	fault({ call => 'create', action => 'bad_image' });
	my ($status, $json) = call(POST => '/v2/pods', wish());
	is_deeply([ $status, $json->{errors} ], [ 422, undef ], 'C15: an unknown image is refused in prose');
	no_fault();
	remove($_) for listed();
};

subtest 'the ledger' => sub {
	my $n = requests();
	my $pod = create(name => 'told');
	call(GET => '/v2/pods');
	call(GET => '/v2/nothing');
	fault({ call => 'delete', action => 'drop', count => 1 });
	remove_once($pod->{id});
	no_fault();
	remove($pod->{id});
	my @new = (requests())[ $n .. $n + 4 ];
	is_deeply(
		[ map { [ @$_{qw(method path call status outcome fault)} ] } @new ],
		[
			[ 'POST', '/v2/pods', 'create', 201, 'answered', undef ],
			[ 'GET', '/v2/pods', 'list', 200, 'answered', undef ],
			[ 'GET', '/v2/nothing', '', 404, 'answered', undef ],
			[ 'DELETE', "/v2/pods/$pod->{id}", 'delete', 0, 'dropped', 'drop' ],
			[ 'DELETE', "/v2/pods/$pod->{id}", 'delete', 204, 'answered', undef ],
		],
		'the ledger tells of every request');
	my @times = map { @$_{qw(at ended_at)} } @new;
	is("@times", join(' ', sort { $a <=> $b } @times), 'and when it came and ended');
	is(ledger()->{totals}{requests}, scalar(requests()), 'all are counted');
	my $foreign = control(POST => '/_sim/pods', { foreign => 'other' })->{id};
	is_deeply([ @{ line_of($foreign) }{qw(create_status create_outcome)} ], [ undef, undef ], 'a pod of others has no create of ours');
	is_deeply([ @{ line_of($pod->{id}) }{qw(name create_status create_outcome ended_by)} ], [ 'told', 201, 'answered', 'delete' ], 'one of ours has');
	fault({ call => 'create', action => 'vanish', seconds => 5 });
	my $self = create()->{id};
	no_fault();
	advance(5);
	my $line = line_of($self);
	is_deeply([ $line->{ended_by}, sprintf '%.3f', $line->{deleted_at} - $line->{created_at} ], [ 'vanish', '5.000' ], 'one that ended by itself says so');
	remove($_) for listed();
};
is(stop_sim($sim), 0, 'it ends in order');

subtest 'options' => sub {
	my $pid = start_sim('--boot-seconds', 100, '--provision-seconds', 90, '--port-seconds', 30, '--exited-cost', 'zero', '--spend-limit', 1.5);
	my $pod = create(ports => ['22/tcp']);
	my $mapped = sub { return get($pod->{id})->{runtime}{ports}[0]{public}; };
	advance(89);
	is(get($pod->{id})->{status}, 'PROVISIONING', 'L1: so long it is provisioned');
	advance(1);
	is(get($pod->{id})->{status}, 'STARTING', 'L1: then it starts');
	advance(10);
	is(get($pod->{id})->{status}, 'RUNNING', 'L1: then it runs');
	advance(19);
	is($mapped->(), undef, 'L3: its ports come later');
	advance(11);
	ok($mapped->(), 'L3: and come');
	is($pod->{cost}, 0.74, 'L12: a pod that runs has a cost');
	control(POST => '/_sim/pods', { exit => $pod->{id} });
	is(get($pod->{id})->{cost}, 0, 'L12: one that does not has none');
	remove($pod->{id});
	create() for 1, 2;
	my ($status, $json) = call(POST => '/v2/pods', wish());
	is($status, 402, 'M5: more may not be spent in an hour');
	like($json->{detail}, qr/spend limit/, 'M5: and it says why');
	remove((listed())[0]);
	create();
	is(stop_sim($pid), 0, 'it ends in order');

	$pid = start_sim('--boot-seconds', 0);
	$pod = create();
	control(POST => '/_sim/pods', { exit => $pod->{id} });
	is(get($pod->{id})->{cost}, 0.74, 'L12: without the option it has the same');
	is(stop_sim($pid), 0, 'it ends in order');
};

subtest 'the port' => sub {
	my $pid = start_sim('--boot-seconds', 0);
	my $pod = create();
	is((call(POST => '/_sim/refuse', { seconds => 0 }))[0], 400, 'T8: no refusal of no time');
	control(POST => '/_sim/refuse', { seconds => 3600 });
	ok(wait_until(sub { !is_open() }), 'T8: connections are refused');
	is((call(GET => '/v2/pods'))[0], 599, 'T8: and so are calls');
	kill 'USR1', $pid;
	ok(wait_until(\&is_open), 'T8: until a signal');
	is_deeply([ listed() ], [ $pod->{id} ], 'T8: nothing was lost');
	control(POST => '/_sim/refuse', { seconds => 2 });
	ok(wait_until(sub { !is_open() }), 'T8: connections are refused again');
	ok(wait_until(sub { (call(GET => '/v2/pods'))[0] == 200 }), 'T8: or for a time');
	fault({ call => 'list', action => 'delay', seconds => 3600 });
	my $socket = send_only('GET /v2/pods');
	ok(wait_until(sub { control(GET => '/_sim/faults')->{faults}[0]{hits} == 1 }), 'T8: what is held back');
	control(POST => '/_sim/refuse', { seconds => 3600 });
	rest_of($socket);
	ok(wait_until(sub { !is_open() }), 'T8: does not stand in the way');
	is(stop_sim($pid), 0, 'it ends in order');

	$pid = start_sim();
  SKIP:
	{
		skip 'openssl and curl are not installed', 4 if system('command -v openssl curl > /dev/null') != 0;
		my $https = sub {
			return system("curl -s -o /dev/null --max-time 60 -H 'Authorization: Bearer $key' @_ https://$address/v2/pods") >> 8;
		};
		isnt($https->('-k'), 0, 'T8: TLS fails where there is none');
		system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=sim -addext subjectAltName=IP:127.0.0.1 -days 2 "
			  . "-keyout $dir/key.pem -out $dir/cert.pem 2> /dev/null") == 0 or die 'openssl';
		my $tls = start_sim('--tls-cert', "$dir/cert.pem", '--tls-key', "$dir/key.pem");
		is($https->('--fail', '--cacert', "$dir/cert.pem"), 0, 'T8: with a certificate TLS is spoken');
		is($https->(), 60, 'T8: and fails for who does not trust it');
		is(stop_sim($tls), 0, 'it ends in order');
	}
	stop_sim($pid);
};

# What a campaign does: creates, lists and deletes under rules of chance. With $noise, tests look on meanwhile.
sub campaign
{
	my ($seed, $noise, @more) = @_;
	my $pid = start_sim('--seed', $seed, '--manual-clock', '--boot-seconds', 3);
	my @said;

	fault(
		{ call => 'create', action => 'status_after', status => 502, probability => 0.2, @more },
		{ call => 'create', action => 'no_capacity', probability => 0.2, @more },
		{ call => 'create', action => 'later', seconds => 5, jitter => 20, probability => 0.2, @more },
		{ call => 'create', action => 'vanish', seconds => 30, probability => 0.2, @more },
		{ call => 'list', action => 'patchy_list', probability => 0.5, @more },
		{ call => 'delete', action => 'keep_pod', probability => 0.3, @more },
		{ call => '*', action => 'drop_after', probability => 0.1, @more });
	for my $n (1 .. 30)
	{
		push @said, (call(POST => '/v2/pods', wish(name => "c$n", cloud => $n % 2 ? 'SECURE' : 'COMMUNITY')))[0];
		advance(2.5);
		my @ids = @{ ((call(GET => '/v2/pods'))[1] // {})->{pods} // [] };
		push @said, map { $_->{id} } @ids;
		push @said, remove($ids[-1]{id}) if @ids && $n % 3 == 0;
		if ($noise)
		{
			ledger();
			control(GET => '/_sim/pods');
		}
	}
	my $ledger = control(GET => '/_sim/ledger?requests=true');
	stop_sim($pid);
	return ($ledger, JSON::PP->new->canonical->encode([ $ledger, @said ]));
}

subtest 'a run that repeats' => sub {
	my ($ledger, $first) = campaign(5);
	my (undef, $second) = campaign(5);
	my (undef, $watched) = campaign(5, 1);
	my (undef, $other) = campaign(6);

	is($first, $second, 'the same seed, rules and requests make the same run: answers, ids, times, dollars');
	is($first, $watched, 'also when a test looks on');
	isnt($first, $other, 'another seed makes another');
	my %faults = map { ($_->{fault} // '') => 1 } @{ $ledger->{requests} };
	is_deeply([ grep { !$faults{$_} } qw(status_after no_capacity later vanish patchy_list keep_pod drop_after) ], [], 'in which all rules had their chance');
	ok((grep { exists $_->{executed_at} } @{ $ledger->{entries} }), 'and effects came late');
	is(scalar(grep { !defined $_->{outcome} } @{ $ledger->{requests} }), 0, 'and each request came to an end');

	# A rule with a seed of its own does not depend on the others, nor on the program's.
	my @chances;
	for my $case ([ 1, 0 ], [ 2, 3 ])
	{
		my ($seed, $before) = @$case;
		my $pid = start_sim('--seed', $seed);

		fault((map { { call => 'get', action => 'drop' } } 1 .. $before), { call => 'create', action => 'no_capacity', probability => 0.5, seed => 11 });
		push @chances, join ' ', map { (call(POST => '/v2/pods', wish()))[0] } 1 .. 30;
		stop_sim($pid);
	}
	is($chances[0], $chances[1], 'a rule\'s own seed');
	like($chances[0], qr/201.*400|400.*201/, 'leaves it to chance all the same');
};

done_testing();
