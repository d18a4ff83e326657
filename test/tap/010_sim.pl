# runpod-sim: what it shows normally. Tests are named after the rows of docs/runpod-sim.md; those of the
# faults are in 012_sim_faults.pl. Time is moved by the simulator's own clock.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Simulator;
use Test::More;

my $sim = start_sim('--seed', 7, '--boot-seconds', 60);

subtest 'transport' => sub {
	my ($status, $json, $answer) = call(GET => '/v2/networkvolumes');
	is($status, 404, 'T1: an unknown path is 404');
	is($json->{detail}, 'The requested path was not found.', 'T1: and says so');
	($status, $json, $answer) = call(PUT => '/v2/pods');
	is($status, 405, 'T1: a wrong method is 405');
	is($answer->{headers}{allow}, 'GET, POST', 'T1: with the methods that are allowed');
	is((call(GET => '/v2/openapi.json', undef, Authorization => ''))[0], 200, 'T1: the description needs no key');

	for my $header ('', 'Bearer wrong', $key)
	{
		($status, $json) = call(POST => '/v2/pods', wish(), Authorization => $header);
		is($status, 401, "T2: \"$header\" is no key");
	}
	is_deeply($json, { title => 'Unauthorized', status => 401, detail => 'missing bearer token' }, 'T2: as a problem');
	is(ledger()->{totals}{pods}, 0, 'T2: nothing was created');

	my (undef, undef, $unknown) = call(GET => '/v2/pods', undef, Authorization => 'Bearer wrong');
	ok(!exists $unknown->{headers}{ratelimit}, 'T5: who has no key has no quota');
	like($unknown->{headers}{'x-request-id'}, qr/^[0-9a-f]{32}$/, 'T5: but the request an id');
	my $naked = raw(bytes('GET /v2/pods', ''));
	like($naked, qr/^HTTP\/1.1 403 .*error code: 1010/s, 'T3: no User-Agent, no entry');
	unlike($naked, qr/json/, 'T3: and that is not JSON');

	($status, $json, $answer) = call(GET => '/v2/pods');
	is($answer->{headers}{'content-type'}, 'application/json', 'T4: success is JSON');
	like($answer->{headers}{ratelimit}, qr/^"minute";r=\d+;t=\d+, "hour";r=\d+;t=\d+$/, 'T5: the quota');
	like($answer->{headers}{'ratelimit-policy'}, qr/^"minute";q=\d+;w=60, "hour";q=\d+;w=3600$/, 'T5: its policy');
	like($answer->{headers}{'x-request-id'}, qr/^[0-9a-f]{32}$/, 'T5: a request has an id');
	($status, $json, $answer) = call(GET => '/v2/pods/nothing');
	is($status, 404, 'T4: a pod that is not there');
	is($answer->{headers}{'content-type'}, 'application/problem+json', 'T4: an error is a problem document');
	ok(length $answer->{headers}{'x-request-id'}, 'T5: an error has an id too');
	my $pod = create();
	($status, $json, $answer) = call(DELETE => "/v2/pods/$pod->{id}");
	is($status, 204, 'T4: a delete is answered without a body');
	ok(!exists $answer->{headers}{'content-type'} && $answer->{content} eq '', 'T4: and without a type');

	create(name => 'one');
	create(name => 'two');
	is(scalar(listed('?name=one&desiredStatus=EXITED')), 2, 'T10: filters of other times are ignored');
	($status, $json) = call(POST => '/v2/pods', wish(env => { LONG => 'x' x 102400 }));
	is($status, 413, 'T11: a body that is too long');
	is(scalar(listed()), 2, 'T11: makes nothing');

	($status, $json) = call(POST => '/graphql', { query => '{ myself { clientBalance currentSpendPerHr } }' });
	is($status, 200, 'M5: the balance');
	near($json->{data}{myself}{currentSpendPerHr}, 2 * 0.74, 'M5: and what is spent in an hour');
	ok($json->{data}{myself}{clientBalance} > 9999, 'M5: is told by GraphQL');
	($status, $json) = call(POST => '/graphql', { query => '{myself{id}}' }, Authorization => '');
	is_deeply([ $status, $json ], [ 200, { data => { myself => undef } } ], 'X3: without a key there is nobody');
	is((call(POST => '/graphql?api_key=bad', { query => '{myself{id}}' }, Authorization => ''))[0], 401, 'X3: a bad key is 401');
	($status, $json) = call(POST => '/graphql', { query => '{__schema{types{name}}}' });
	is_deeply([ $status, $json->{errors}[0]{extensions}{code} ], [ 400, 'GRAPHQL_VALIDATION_FAILED' ], 'X3: no introspection');
	my $ask = sub {
		my ($query, %variables) = @_;
		my ($code, $said) = call(POST => '/graphql', { query => $query, variables => \%variables });
		return ($code, $said->{data}, @{ $said->{errors}[0] // {} }{qw(message path)}, $said->{errors}[0]{extensions}{code});
	};
	is_deeply([ $ask->('mutation { podTerminate(input: {podId: "nothing"}) }') ],
		[ 200, { podTerminate => undef }, 'pod not found to terminate', ['podTerminate'], 'POD_NOT_FOUND' ], 'X3: an error comes with 200');
	my $deploy = 'mutation ($input: PodFindAndDeployOnDemandInput) { podFindAndDeployOnDemand(input: $input) { id imageName } }';
	is_deeply([ ($ask->($deploy, input => { gpuTypeId => 'NVIDIA GT 1030', name => 'g', imageName => 'i' }))[ 0, 2, 4 ] ],
		[ 200, $capacity, 'SUPPLY_CONSTRAINT' ], 'C10: GraphQL says the same of an unknown GPU');
	my $deployed = ($ask->($deploy, input => { gpuTypeId => 'NVIDIA L4', name => 'g', imageName => 'i:1', gpuCount => 2 }))[1]{podFindAndDeployOnDemand};
	is_deeply([ @{ get($deployed->{id}) }{qw(name image)}, get($deployed->{id})->{gpu}{count} ], [ 'g', 'i:1', 2 ], 'X3: a pod is made');
	is_deeply([ ($ask->("mutation { podTerminate(input: {podId: \"$deployed->{id}\"}) }"))[ 0, 1, 2 ] ], [ 200, { podTerminate => undef }, undef ], 'X3: and ended');
	is((call(GET => "/v2/pods/$deployed->{id}"))[0], 404, 'X3: indeed');
	is_deeply([ map { $_->{op} } @{ ledger()->{entries} }[ -2, -1 ] ], [ 'create', 'delete' ], 'X3: which the ledger knows');
	remove($_) for listed();
};

subtest 'create' => sub {
	my $pod = create(env => { A => 'b', SECRET => 'x y' }, ports => ['22/tcp']);
	like($pod->{id}, qr/^[a-z0-9]{14}$/, 'C1: an id');
	like($pod->{createdAt}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'C1: a time');
	is($pod->{cost}, 0.74, 'C1: the price of an hour');
	is_deeply([ grep { !exists $pod->{$_} } qw(id name status actions image args disk mounts ports env registry cloud
			dataCenterId cudaVersion ssh template cost locked runtime createdAt startedAt globalNetworking gpu) ],
		[], 'C1: every key is there');
	ok(!exists $pod->{cpu} && !exists $pod->{cluster}, 'C1: and none that is not of this pod');

	my @refused = (
		[ 'C2: malformed JSON', '{"name": ', 400, undef ],
		[ 'C2: no body', undef, 400, undef ],
		[ 'C2: no object', '[]', 422, qr/^\$: / ],
		[ 'C2: no name', wish(name => undef), 422, qr/^\$: missing property 'name'/ ],
		[ 'C2: an empty name', wish(name => ''), 422, qr/^\$\.name: / ],
		[ 'C2: no image', wish(image => undef), 422, qr/missing property 'image'/ ],
		[ 'C2: a count of 0', wish(gpu => { id => 'NVIDIA L4', count => 0 }), 422, qr/^\$\.gpu\.count: / ],
		[ 'C2: a count as text', wish(gpu => { id => 'NVIDIA L4', count => '1' }), 422, qr/^\$\.gpu\.count: / ],
		[ 'C2: no GPU id', wish(gpu => { count => 1 }), 422, qr/^\$\.gpu: missing property 'id'/ ],
		[ 'C2: a number in env', wish(env => { A => 1 }), 422, qr/^\$\.env\.A: / ],
		[ 'C2: another cloud', wish(cloud => 'ALL'), 422, qr/^\$\.cloud: value must be one of 'SECURE', 'COMMUNITY'/ ],
		[ 'C2: two clouds', wish(cloud => 'SECURE COMMUNITY'), 422, qr/^\$\.cloud: / ],
		[ 'C2: a version', wish(gpu => { id => 'NVIDIA L4', count => 1, minCudaVersion => '12' }), 422, qr/minCudaVersion/ ],
		[ 'C2: two volumes', wish(mounts => { network => [ ({ volumeId => 'a', path => '/a' }) x 2 ] }), 422, qr/network/ ],
		[ 'C3: gpuTypeIds', wish(gpuTypeIds => ['NVIDIA L4']), 422, qr/additional properties 'gpuTypeIds' not allowed/ ],
		[ 'C3: interruptible', wish(interruptible => JSON::PP::true), 422, qr/'interruptible' not allowed/ ],
		[ 'C3: imageName', wish(imageName => 'x'), 422, qr/'imageName' not allowed/ ],
		[ 'C4: no count', wish(gpu => { id => 'NVIDIA L4' }), 400, $capacity ],
		[ 'C6: a data centre without it', wish(gpu => { id => 'NVIDIA B200', count => 1 }, dataCenterIds => ['AP-JP-1']), 400, $capacity ],
		[ 'C6: too many', wish(gpu => { id => 'NVIDIA L4', count => 10 }), 400, $capacity ],
		[ 'C6: a cloud without it', wish(gpu => { id => 'NVIDIA L4', count => 1 }, cloud => 'COMMUNITY'), 400, $capacity ],
		[ 'C6: a CUDA version of nobody', wish(gpu => { id => 'NVIDIA L4', count => 1, minCudaVersion => '99.0' }), 400, $capacity ],
		[ 'C7: both gpu and cpu', wish(cpu => { id => 'cpu5c', vcpuCount => 4 }), 400, qr/exactly one/ ],
		[ 'C7: neither', wish(gpu => undef), 400, qr/exactly one/ ],
		[ 'C7: both mounts', wish(mounts => { persistent => { size => 10, path => '/a' }, network => [ { volumeId => 'simvolro01', path => '/b' } ] }), 400, qr/exclude/ ],
		[ 'C7: both CUDA rules', wish(gpu => { id => 'NVIDIA L4', count => 1, minCudaVersion => '12.4', allowedCudaVersions => ['12.8'] }), 400, qr/exclude/ ],
		[ 'C7: a volume elsewhere', wish(dataCenterIds => ['US-TX-3'], mounts => { network => [ { volumeId => 'simvolro01', path => '/b' } ] }), 400, qr/EU-RO-1/ ],
		[ 'C7: a place without volumes', wish(dataCenterIds => ['EU-SE-1'], mounts => { network => [ { volumeId => 'simvolro01', path => '/b' } ] }), 400, qr/no network volumes.*EU-RO-1/ ],
		[ 'C8: an unknown template', wish(templateId => 'nobody'), 404, undef ],
		[ 'C8: a serverless template', wish(templateId => 'simserverless'), 422, qr/serverless/ ],
		[ 'C10: an unknown GPU', wish(gpu => { id => 'NVIDIA GT 1030', count => 1 }), 400, $capacity ],
	);
	for my $case (@refused)
	{
		my ($name, $body, $expected, $text) = @$case;
		my ($status, $json) = call(POST => '/v2/pods', $body);

		is($status, $expected, $name);
		is($json->{status}, $expected, "$name: the problem says it too");
		my $said = join("\n", $json->{errors} ? @{ $json->{errors} } : $json->{detail});
		ref $text ? like($said, $text, "$name: and why") : defined $text ? is($said, $text, "$name: and why") : ok(length $said, "$name: in words");
	}
	is((call(POST => '/v2/pods', wish(cpu => { id => 'cpu5c' }, gpu => { id => 'NVIDIA GT 1030', count => 1 })))[0], 422, 'C2: form comes before what excludes each other');
	my ($status, $json) = call(POST => '/v2/pods', wish(cpu => { id => 'cpu5c', vcpuCount => 4 }, gpu => { id => 'NVIDIA GT 1030', count => 1 }));
	like($json->{detail}, qr/exactly one/, 'C2: and that before capacity');
	($status, $json) = call(POST => '/v2/pods', wish(name => undef));
	is_deeply([ grep { /not allowed/ && /'image'/ && /'gpu'/ } @{ $json->{errors} } ], [ $json->{errors}[-1] ],
		'C2: a missing property makes the valid ones look wrong');
	is(scalar(listed()), 1, 'refusals leave nothing behind');

	my $twin = create();
	isnt($twin->{id}, $pod->{id}, 'C5: a name may be there twice');
	is_deeply([ sort(listed()) ], [ sort($pod->{id}, $twin->{id}) ], 'C5: and both are listed');
	my $placed = create(dataCenterIds => [ 'AP-JP-1', 'US-CA-2' ]);
	like($placed->{dataCenterId}, qr/^(AP-JP-1|US-CA-2)$/, 'C6: the data centres that were asked for');
	is(create(mounts => { network => [ { volumeId => 'simvoltx03', path => '/v' } ] })->{dataCenterId}, 'US-TX-3',
		'C7: a volume binds its pod');
	my $made = create(image => undef, templateId => 'simtemplate', env => { MINE => '1' }, disk => 5);
	is_deeply($made->{env}, { FROM_TEMPLATE => 'yes', MINE => '1' }, 'C8: env is merged');
	is($made->{image}, 'sim/template:1', 'C8: the image is the template\'s');
	is($made->{disk}, 5, 'C8: what is given wins');
	is($made->{template}, undef, 'C8: the template is not told');
	is_deeply($pod->{env}, { A => 'b', SECRET => 'x y' }, 'C9: env comes back');
	is_deeply(get($pod->{id})->{env}, $pod->{env}, 'C9: from a get');
	is_deeply((grep { $_->{id} eq $pod->{id} } @{ (call(GET => '/v2/pods'))[1]{pods} })[0]{env}, $pod->{env}, 'C9: and a list');
	is_deeply([ $twin->{ports}, $twin->{mounts} ], [ [], {} ], 'C9: no ports and mounts but those asked for');
	is(create(cloud => 'COMMUNITY', gpu => { id => 'NVIDIA GeForce RTX 4090', count => 2 })->{cost}, 0.68, 'the other cloud\'s price, twice');
	is(create(gpu => { id => 'NVIDIA L4', count => 1, allowedCudaVersions => ['12.8'] })->{cudaVersion}, '12.8', 'the CUDA version asked for');
	remove($_) for listed();
};

subtest 'life' => sub {
	my $pod = create(ports => [ '22/tcp', '8888/http' ]);
	my $id = $pod->{id};
	my $next = sub { advance($_[0]); $pod = get($id); };

	is_deeply([ @$pod{qw(status runtime)} ], [ 'PROVISIONING', undef ], 'L1: first');
	is_deeply($pod->{actions}, [qw(stop terminate)], 'L2: what may be done');
	ok($pod->{ssh}{proxy} && !$pod->{ssh}{direct}, 'L3: the proxy is there at once');
	$next->(30);
	is_deeply([ @$pod{qw(status runtime)} ], [ 'STARTING', undef ], 'L1: then');
	is_deeply($pod->{actions}, [qw(stop terminate)], 'L2: what may be done');
	$next->(30);
	is($pod->{status}, 'RUNNING', 'L1: at last');
	is_deeply($pod->{actions}, [qw(stop restart terminate)], 'L2: what may be done');
	is($pod->{runtime}{ports}[0]{public}, undef, 'L3: the port is not mapped yet');
	$next->(100);
	my $uptime = $pod->{runtime}{uptime};
	ok($uptime >= 100, 'L3: it has been up');
	my ($port) = grep { $_->{private} == 22 } @{ $pod->{runtime}{ports} };
	ok($port->{public} && $pod->{ssh}{direct}, 'L3: the port is mapped');
	is(scalar(grep { $_->{private} == 19123 && $_->{type} eq 'http' } @{ $pod->{runtime}{ports} }), 1, 'L3: with one that nobody asked for');
	$next->(50);
	ok($pod->{runtime}{uptime} >= $uptime + 50, 'L3: the uptime grows');

	my ($status, $json) = call(POST => "/v2/pods/$id/action", { action => 'reset' });
	is($status, 422, 'L11: there is no reset');
	is($json->{errors}[0], "\$.action: value must be one of 'start', 'stop', 'restart', 'terminate'", 'L11: but these');
	is((call(POST => "/v2/pods/$id/action", { action => 'start' }))[0], 409, 'L11: what runs cannot start');
	call(PATCH => "/v2/pods/$id", { locked => JSON::PP::true });
	is((call(POST => "/v2/pods/$id/action", { action => 'stop' }))[0], 409, 'L13: a locked pod refuses to stop');
	call(PATCH => "/v2/pods/$id", { locked => JSON::PP::false, name => 'renamed' });
	($status, $json) = call(POST => "/v2/pods/$id/action", { action => 'stop' });
	is_deeply([ $status, @$json{qw(status runtime name)} ], [ 200, 'EXITED', undef, 'renamed' ], 'L10: stopped');
	is_deeply($json->{actions}, [qw(start terminate)], 'L2: what may be done');
	fault({ call => 'action', action => 'status', status => 400, detail => 'There are not enough free GPUs on the host machine to start this pod.' });
	is((call(POST => "/v2/pods/$id/action", { action => 'start' }))[0], 400, 'L10: the host was given away');
	no_fault();
	is((call(POST => "/v2/pods/$id/action", { action => 'start' }))[1]{status}, 'STARTING', 'L10: or it starts');
	$next->(100);
	isnt((grep { $_->{private} == 22 } @{ $pod->{runtime}{ports} })[0]{public}, $port->{public}, 'L15: with another port');
	($status, $json) = call(POST => "/v2/pods/$id/action", { action => 'restart' });
	is($json->{status}, 'STARTING', 'L10: it starts again');
	is((call(POST => "/v2/pods/$id/action", { action => 'terminate' }))[0], 204, 'L10: and ends');
	is((call(GET => "/v2/pods/$id"))[0], 404, 'L10: for good');

	for my $state (qw(PROVISIONING RUNNING))
	{
		fault({ call => 'create', action => 'stuck', params => { status => $state } });
		$pod = create();
		no_fault();
		advance(86400);
		is_deeply([ @{ get($pod->{id}) }{qw(status runtime)} ], [ $state, undef ], "L4: $state for ever");
		my ($line) = grep { $_->{id} eq $pod->{id} } @{ ledger()->{pods} };
		ok($line->{billed} >= 24 * 0.74, 'L4: and billed');
	}
	fault({ call => 'create', action => 'crash_loop', seconds => 10 });
	$pod = create();
	no_fault();
	advance(60);
	my @seen = map { advance(7); get($pod->{id}) } 1 .. 6;
	is(scalar(grep { $_->{status} eq 'RUNNING' && $_->{runtime}{uptime} < 10 } @seen), 6, 'L5: RUNNING, and never up for long');
	for my $case ([ exit => 'EXITED' ], [ fail => 'ERROR' ])
	{
		my ($action, $expected) = @$case;

		fault({ call => 'create', action => $action, seconds => 100 });
		$pod = create();
		no_fault();
		isnt(get($pod->{id})->{status}, $expected, "L7: not yet $expected");
		advance(100);
		$pod = get($pod->{id});
		is_deeply([ @$pod{qw(status runtime)}, $pod->{actions} ], [ $expected, undef, [qw(start terminate)] ], "L7, L8: $expected by itself");
		$pod = create();
		control(POST => '/_sim/pods', { $action => $pod->{id} });
		is(get($pod->{id})->{status}, $expected, "L7, L8: $expected when told");
	}
	fault({ call => 'create', action => 'vanish', seconds => 100 });
	$pod = create();
	no_fault();
	advance(100);
	is((call(GET => "/v2/pods/$pod->{id}"))[0], 404, 'L8: gone by itself');
	$pod = create();
	control(POST => '/_sim/pods', { vanish => $pod->{id} });
	is((call(GET => "/v2/pods/$pod->{id}"))[0], 404, 'L8: gone when told');
	is((grep { $_->{id} eq $pod->{id} } @{ ledger()->{pods} })[0]{ended_by}, 'vanish', 'L8: the ledger knows how');
	remove($_) for listed();

	my $volume = create(mounts => { network => [ { volumeId => 'simvolro01', path => '/v' } ] });
	$pod = create();
	control(POST => '/_sim/balance', { balance => 1 });
	advance(3600);
	is((call(GET => "/v2/pods/$pod->{id}"))[0], 404, 'L9: no money: gone');
	is(get($volume->{id})->{status}, 'EXITED', 'L9: unless it has a network volume');
	is((call(POST => '/v2/pods', wish()))[0], 402, 'L9: and nothing new');
	control(POST => '/_sim/balance', { balance => 1000 });
	remove($_) for listed();
};

subtest 'get, list, delete' => sub {
	my @ids = map { create(name => "n$_")->{id} } 1 .. 3;
	my $foreign = control(POST => '/_sim/pods', { foreign => 'somebody', env => { X => 'y' } })->{id};

	control(POST => '/_sim/pods', { exit => $ids[0] });
	my $all = (call(GET => '/v2/pods'))[1];
	is_deeply([ map { $_->{id} } @{ $all->{pods} } ], [ $foreign, reverse @ids ], 'G1: newest first, all statuses, those of others');
	ok(!exists $all->{pagination}, 'G2: in one piece');
	is(remove($ids[0]), 204, 'G5: an exited pod is deleted');
	is(remove($ids[0]), 404, 'G5: once');
	is((call(GET => "/v2/pods/$ids[0]"))[0], 404, 'G5: and is not there any more');
	for my $case ([ 'PROVISIONING', 0 ], [ 'STARTING', 30 ], [ 'RUNNING', 60 ], [ 'EXITED', 0, 'exit' ], [ 'ERROR', 0, 'fail' ])
	{
		my ($status, $seconds, $verb) = @$case;
		my $id = create()->{id};

		advance($seconds);
		control(POST => '/_sim/pods', { $verb => $id }) if $verb;
		is(get($id)->{status}, $status, "G5: a pod that is $status");
		is_deeply([ remove($id), remove($id) ], [ 204, 404 ], "G5: is deleted as $status");
	}
	is(remove('unknownunknown'), 404, 'G7: an unknown pod');
	is(ledger()->{entries}[-1]{pod}, 'unknownunknown', 'G7: which the ledger remembers');

	my $member = control(POST => '/_sim/pods', { member => 'node' })->{id};
	is_deeply([ remove($member), (call(PATCH => "/v2/pods/$member", { name => 'x' }))[0], (call(POST => "/v2/pods/$member/action", { action => 'stop' }))[0] ],
		[ 409, 409, 409 ], 'G7: a member of a cluster is not touched');
	is(get($member)->{cluster}{id}, 'simcluster', 'G7: it says what it is');
	ok(!(grep { $_ eq $member } listed()), 'G7: no list has it');
	ok((grep { $_ eq $member } listed('?includeClusterPods=true')), 'G7: but one that is asked to');
	control(POST => '/_sim/pods', { vanish => $member });

	fault({ call => 'list', action => 'hide_new', seconds => 300 });
	my $late = create()->{id};
	ok(!(grep { $_ eq $late } listed()), 'G4: a new pod is not listed yet');
	is((call(GET => "/v2/pods/$late"))[0], 200, 'G4: a get may know it');
	no_fault();
	fault({ call => '*', action => 'hide_new', seconds => 300 });
	is((call(GET => "/v2/pods/$late"))[0], 404, 'G4: or not');
	advance(300);
	ok((grep { $_ eq $late } listed()), 'G4: later it is listed');
	is((call(GET => "/v2/pods/$late"))[0], 200, 'G4: and got');
	no_fault();
	fault({ call => 'list', action => 'show_deleted', seconds => 300 });
	remove($late);
	my ($ghost) = grep { $_->{id} eq $late } @{ (call(GET => '/v2/pods'))[1]{pods} };
	is($ghost->{status}, 'RUNNING', 'G4: a deleted pod is still listed');
	is((call(GET => "/v2/pods/$late"))[0], 404, 'G4: but not got');
	advance(300);
	ok(!(grep { $_ eq $late } listed()), 'G4: for a while');
	no_fault();

	fault({ call => 'delete', action => 'status_after', status => 500, count => 1 });
	is(remove($ids[1]), 500, 'G6: a delete that says it failed');
	is(remove($ids[1]), 404, 'G6: and did not');
	fault({ call => 'delete', action => 'keep_pod', count => 1 });
	is(remove($ids[2]), 204, 'G6: a delete that says it worked');
	is_deeply([ @{ ledger()->{entries}[-1] }{qw(status executed fault)} ], [ 204, JSON::PP::false, 'keep_pod' ], 'G6: the ledger knows better');
	ok((grep { $_ eq $ids[2] } listed()), 'G6: and the pod lives');
	no_fault();

	fault({ call => 'list', action => 'empty_list', count => 1 });
	is_deeply([ listed() ], [], 'G8: an empty list');
	is(scalar(listed()), 2, 'G8: once');
	fault({ call => 'list', action => 'partial_list', pods => 1, count => 1 });
	is(scalar(listed()), 1, 'G3: part of a list that looks whole');
	no_fault();
	is(ledger()->{totals}{live}, 1, 'the totals leave the pods of others out');
	remove($_) for listed();
};

subtest 'catalog' => sub {
	my $gpus = (call(GET => '/v2/catalog/gpus'))[1]{gpus};
	my %gpu = map { $_->{id} => $_ } @$gpus;
	ok(!exists $gpus->[0]{availability} && !exists $gpus->[0]{dataCenters}, 'M6: without stock');
	is($gpu{'NVIDIA GeForce RTX 4090'}{price}{secure}, 0.74, 'M6: a price');
	is_deeply([ @{ $gpu{'NVIDIA L4'} }{qw(secure community)}, $gpu{'NVIDIA L4'}{price}{community} ],
		[ JSON::PP::true, JSON::PP::false, 0 ], 'M6: 0 is no price');
	is_deeply([ $gpu{unknown}{memory}, $gpu{unknown}{manufacturer} ], [ 0, 'UNKNOWN' ], 'M6: something unknown is among them');
	$gpus = (call(GET => '/v2/catalog/gpus?include=AVAILABILITY&product=POD'))[1]{gpus};
	%gpu = map { $_->{id} => $_ } @$gpus;
	is($gpu{'NVIDIA B200'}{availability}, 'LOW', 'M6: with stock');
	is_deeply($gpu{'NVIDIA B200'}{dataCenters}, [ { id => 'US-CA-2', name => 'US-CA-2', availability => 'LOW' } ], 'M6: by data centre');
	%gpu = map { $_->{id} => $_ } @{ (call(GET => '/v2/catalog/gpus?include=AVAILABILITY&product=POD&cloud=COMMUNITY&count=9'))[1]{gpus} };
	is_deeply([ map { $gpu{"NVIDIA $_"}{availability} } 'L4', 'GeForce RTX 4090', 'H200' ], [qw(NONE HIGH NONE)], 'M6: for a count in a cloud');
	is((call(GET => '/v2/catalog/gpus?include=AVAILABILITY'))[0], 400, 'M6: include needs product');
	is((call(GET => '/v2/catalog/gpus?product=POD'))[0], 400, 'M6: and product include');
	is((call(GET => '/v2/catalog/gpus?include=AVAILABILITY&product=POD&countryCodes=FR&countryCodes=DE'))[0], 400, 'M6: no key twice');
	is((call(GET => '/v2/catalog/gpus/NVIDIA%20L4'))[1]{name}, 'L4', 'M6: one of them');
	is((call(GET => '/v2/catalog/gpus/NVIDIA%20L5'))[0], 404, 'M6: or none');
	my $places = (call(GET => '/v2/catalog/datacenters?include=GPU_AVAILABILITY'))[1]{dataCenters};
	is(scalar(@$places), 8, 'M6: data centres');
	ok((grep { $_->{id} eq 'NVIDIA GeForce RTX 4090' } @{ $places->[0]{gpuAvailability} }), 'M6: with their stock');
};

subtest 'money' => sub {
	my $before = ledger();
	my $pod = create(name => 'meter', gpu => { id => 'NVIDIA L4', count => 2 }, disk => 73, env => { GPU_ORCH_INSTALLATION => 'inst' });
	advance(1800);
	call(POST => "/v2/pods/$pod->{id}/action", { action => 'stop' });
	advance(36000);
	call(POST => "/v2/pods/$pod->{id}/action", { action => 'start' });
	advance(1800);
	my ($live) = grep { $_->{id} eq $pod->{id} } @{ ledger()->{pods} };
	is($live->{deleted_at}, undef, 'it lives');
	remove($pod->{id});
	advance(5000);
	my $ledger = ledger();
	my ($line) = grep { $_->{id} eq $pod->{id} } @{ $ledger->{pods} };
	is_deeply([ @$line{qw(name gpu count cost_per_hour env_installation)} ], [ 'meter', 'NVIDIA L4', 2, 0.98, 'inst' ], 'the ledger\'s line');
	near($line->{seconds}, $line->{deleted_at} - $line->{created_at}, 'M3: seconds from create to delete');
	ok($line->{seconds} >= 39600 && $line->{seconds} < 40600, 'M3: and not beyond');

	# An hour of running and ten of disk, 73 GB at 0.10 $ in 730 hours; and what the requests took.
	my $disk = 10 * 0.01;
	ok($line->{billed} >= 0.98 + $disk && $line->{billed} <= 0.98 * ($line->{seconds} - 36000) / 3600 + $disk * 1.1, 'M3: GPU while it runs, disk while it does not')
	  or diag($line->{billed});
	my $simple = create(name => 'simple');
	advance(1000);
	remove($simple->{id});
	($line) = grep { $_->{id} eq $simple->{id} } @{ ledger()->{pods} };
	near($line->{billed}, $line->{seconds} * 0.74 / 3600, 'M3: seconds times price');
	$ledger = ledger();
	is($ledger->{totals}{creates} - $before->{totals}{creates}, 2, 'the totals count creates');
	is($ledger->{totals}{deletes} - $before->{totals}{deletes}, 2, 'and deletes');
	my ($seconds, $billed) = (0, 0);
	($seconds, $billed) = ($seconds + $_->{seconds}, $billed + $_->{billed}) for grep { !$_->{foreign} } @{ $ledger->{pods} };
	near($ledger->{totals}{seconds}, $seconds, 'and add up the seconds');
	near($ledger->{totals}{billed}, $billed, 'and the money');
	is($ledger->{totals}{pods}, scalar(grep { !$_->{foreign} } @{ $ledger->{pods} }), 'of all pods');

	my $sum = sub { my ($path) = @_; return (call(GET => "/v2/billing/pods?podId=$simple->{id}$path"))[1]; };
	is($sum->('')->{metadata}{recordCount}, 0, 'M4: billing history lags behind');
	advance(3601);
	my $history = $sum->('&bucketSize=hour');
	near($history->{metadata}{totals}{totalAmount}, $line->{billed}, 'M4: and is the meter\'s sum later');
	my $in_buckets = 0;
	$in_buckets += $_->{totalAmount} for @{ $history->{records} };
	near($in_buckets, $line->{billed}, 'M4: in hours');
	near($sum->('&bucketSize=day')->{metadata}{totals}{gpuAmount}, $line->{billed}, 'M4: in days');
	near($sum->('&bucketSize=week&lastN=2')->{metadata}{totals}{gpuAmount}, $line->{billed}, 'M4: in the last two weeks');
	is((call(GET => '/v2/billing/pods?bucketSize=minute'))[0], 422, 'M4: not in minutes');
	is((call(GET => '/v2/billing/pods?lastN=2&startTime=2026-01-01T00:00:00Z'))[0], 400, 'M4: one way to say when');
};
is(stop_sim($sim), 0, 'it ends in order');

subtest 'paging' => sub {
	my $pid = start_sim('--paging', '--page-size', 3, '--status-mode', 'immediate', '--boot-seconds', 60);
	my @ids = map { create(name => "p$_")->{id} } 1 .. 7;
	my @got;
	my $cursor;
	my $pages = 0;

	is_deeply([ @{ get($ids[0]) }{qw(status runtime)} ], [ 'RUNNING', undef ], 'L1: RUNNING at once, without a runtime');
	do
	{
		my ($status, $json) = call(GET => '/v2/pods?limit=1000' . (defined $cursor ? "&cursor=$cursor" : ''));
		push @got, map { $_->{id} } @{ $json->{pods} };
		$cursor = $json->{pagination}{hasNextPage} ? $json->{pagination}{nextCursor} : undef;
		if ($pages++ == 0)
		{
			remove($ids[6]);
			create(name => 'between');
		}
	} while (defined $cursor);
	is_deeply(\@got, [ reverse @ids ], 'G2: pages, newest first');
	is($pages, 3, 'G2: three of them');
	ok(!(grep { $_ eq (listed())[0] } @got), 'G3: what is made between two pages is on none');
	for my $query ('cursor=nonsense', 'cursor=c1-1', 'limit=0', 'limit=1001', 'limit=x')
	{
		is((call(GET => "/v2/pods?$query"))[0], 422, "G2: $query is refused");
	}
	my $page = (call(GET => '/v2/pods?limit=2'))[1];
	is(scalar(@{ $page->{pods} }), 2, 'G2: as many as wanted');
	fault({ call => 'list', cursor => JSON::PP::true, action => 'status', count => 1 });
	is((call(GET => '/v2/pods'))[0], 200, 'G3: the first page comes');
	is((call(GET => "/v2/pods?cursor=$page->{pagination}{nextCursor}"))[0], 500, 'G3: the second fails');
	no_fault();
	fault({ call => 'list', action => 'overlap', pods => 1 });
	my $second = (call(GET => "/v2/pods?cursor=$page->{pagination}{nextCursor}"))[1];
	is($second->{pods}[0]{id}, $page->{pods}[-1]{id}, 'G3: a pod on two pages');
	no_fault();
	fault({ call => 'list', action => 'partial_list', pods => 1 });
	$page = (call(GET => '/v2/pods'))[1];
	is_deeply([ scalar(@{ $page->{pods} }), $page->{pagination} ], [ 1, { nextCursor => undef, hasNextPage => JSON::PP::false } ],
		'G3: part of a list that looks whole');
	is(stop_sim($pid), 0, 'it ends in order');
};

subtest 'containers' => sub {
	my $log = "$dir/log";
	my $command = "echo \$\$ \$RUNPOD_POD_ID >> $log; env > $dir/env; while [ ! -e $dir/exit ]; do sleep 0.02; done; rm $dir/exit";
	my $pid = start_sim('--boot-seconds', 1000, '--launch', $command);
	my $pod = create(
		ports => [ '22/tcp', '80/http' ],
		mounts => { network => [ { volumeId => 'simvolro01', path => '/v' } ] },
		env => { FROM_USER => 'a b', RUNPOD_API_KEY => 'mine', RUNPOD_POD_ID => 'mine' });
	my $foreign = control(POST => '/_sim/pods', { foreign => 'somebody' })->{id};

	is(scalar(file_lines($log)), 0, 'M1: nothing runs while the pod boots');
	advance(1000);
	ok(wait_until(sub { file_lines($log) == 1 && -s "$dir/env" }), 'M1: when it has booted, its command runs');
	my %env = map { /^(\w+)=(.*)/ ? ($1 => $2) : () } file_lines("$dir/env");
	is_deeply(
		[ @env{qw(FROM_USER RUNPOD_POD_ID RUNPOD_DC_ID RUNPOD_GPU_COUNT RUNPOD_CPU_COUNT RUNPOD_POD_HOSTNAME RUNPOD_PUBLIC_IP RUNPOD_TCP_PORT_22 RUNPOD_VOLUME_ID PATH)} ],
		[ 'a b', $pod->{id}, 'EU-RO-1', 1, 8, $pod->{id}, '127.0.0.1', 22, 'simvolro01', $ENV{PATH} ],
		'M1: with the variables of the user, of the provider and of the machine');
	like($env{RUNPOD_API_KEY}, qr/^rpa_[0-9a-f]{32}$/, 'M1: and a key of its own');
	ok(!exists $env{RUNPOD_TCP_PORT_80}, 'M1: http is not tcp');

	advance(500);
	ok(get($pod->{id})->{runtime}{uptime} >= 500, 'L6: it has been up');
	open my $exit, '>', "$dir/exit" or die;
	ok(wait_until(sub { file_lines($log) == 2 }), 'L6: when the command exits, it runs again');
	my $again = get($pod->{id});
	is($again->{status}, 'RUNNING', 'L6: the pod remains RUNNING');
	ok($again->{runtime}{uptime} < 500, 'L6: the uptime fell');
	my @lines = map { [split] } file_lines($log);
	isnt($lines[0][0], $lines[1][0], 'L6: it is another process');
	is($lines[0][1], $lines[1][1], 'L6: of the same pod');
	kill 'KILL', $lines[1][0];
	ok(wait_until(sub { file_lines($log) == 3 }), 'L6: also when it is killed');

	my $process = (map { [split] } file_lines($log))[2][0];
	call(POST => "/v2/pods/$pod->{id}/action", { action => 'stop' });
	ok(wait_until(sub { !kill 0, $process }), 'M7: a stopped pod has no process');
	call(POST => "/v2/pods/$pod->{id}/action", { action => 'start' });
	advance(1000);
	ok(wait_until(sub { file_lines($log) == 4 }), 'L10: a started one has one again');
	is_deeply([ map { $_->{runs} } @{ control(GET => '/_sim/pods')->{pods} } ], [ 4, 0 ], 'the pods of others run nothing here');

	ok(wait_until(sub { %env = map { /^(\w+)=(.*)/ ? ($1 => $2) : () } file_lines("$dir/env"); exists $env{RUNPOD_API_KEY} }),
		'M2: the pod has a key');
	my @own = (Authorization => "Bearer $env{RUNPOD_API_KEY}");
	is((call(GET => '/v2/pods', undef, @own))[0], 403, 'M2: a pod\'s key lists nothing');
	is((call(POST => '/v2/pods', wish(), @own))[0], 403, 'M2: makes nothing');
	is((call(DELETE => "/v2/pods/$foreign", undef, @own))[0], 403, 'M2: ends no other pod');
	fault({ call => 'delete', by => 'pod', action => 'forbidden' });
	is((call(DELETE => "/v2/pods/$pod->{id}", undef, @own))[0], 403, 'M2: nor, where the provider is so, its own');
	no_fault();
	$process = (map { [split] } file_lines($log))[3][0];
	is((call(DELETE => "/v2/pods/$pod->{id}", undef, @own))[0], 204, 'M2: but may end its own');
	is(ledger()->{entries}[-1]{by}, 'pod', 'M2: the ledger knows who it was');
	ok(wait_until(sub { !kill 0, $process }), 'M7: a deleted pod has no process');
	is((call(GET => "/v2/pods/$pod->{id}", undef, @own))[0], 401, 'M2: the key ends with the pod');
	is(stop_sim($pid), 0, 'it ends in order');

	# No time to boot: a restart is another process all the same, and there is but one at a time.
	$pid = start_sim('--boot-seconds', 0, '--launch', "echo \$\$ >> $dir/quick; exec sleep 1000");
	$pod = create();
	ok(wait_until(sub { file_lines("$dir/quick") == 1 }), 'L10: a pod that boots at once');
	call(POST => "/v2/pods/$pod->{id}/action", { action => 'restart' });
	ok(wait_until(sub { file_lines("$dir/quick") == 2 }), 'L10: a restart runs it again');
	ok(!kill(0, (file_lines("$dir/quick"))[0]), 'L10: after the first has ended');
	is(stop_sim($pid), 0, 'it ends in order');

	# A command is told before it is killed.
	$pid = start_sim('--boot-seconds', 0, '--launch', "exec 2> /dev/null; trap 'echo told >> $dir/told; exit' TERM; echo runs >> $dir/told; while :; do sleep 0.02; done");
	$pod = create();
	ok(wait_until(sub { file_lines("$dir/told") == 1 }), 'M7: a command runs');
	remove($pod->{id});
	ok(wait_until(sub { file_lines("$dir/told") == 2 }), 'M7: and is asked to end');
	is(stop_sim($pid), 0, 'it ends in order');

	# A command that does not listen, with a child: both go, in the end.
	my $stubborn = "trap '' TERM; echo start \$\$ >> $dir/stubborn; sleep 1000 & echo child \$! >> $dir/stubborn; while :; do wait; done";
	$pid = start_sim('--boot-seconds', 0, '--launch', $stubborn);
	$pod = create();
	ok(wait_until(sub { file_lines("$dir/stubborn") == 2 }), 'a stubborn command runs');
	my @processes = map { (split)[1] } file_lines("$dir/stubborn");
	remove($pod->{id});
	ok(wait_until(sub { !grep { kill 0, $_ } @processes }), 'M7: it is killed in the end, with its child');
	create();
	ok(wait_until(sub { file_lines("$dir/stubborn") == 4 }), 'another one runs');
	@processes = map { (split)[1] } file_lines("$dir/stubborn");
	is(stop_sim($pid), 0, 'the simulator ends');
	ok(wait_until(sub { !grep { kill 0, $_ } @processes }), 'and leaves nothing running');
};

subtest 'REST v1' => sub {
	my $pid = start_sim();
	for my $case ([ GET => '/v1/pods' ], [ POST => '/v1/pods' ], [ DELETE => '/v1/pods/x' ], [ GET => '/v1/nothing' ], [ GET => '/v1' ])
	{
		is_deeply([ (call(@$case))[ 0, 1 ] ], [ 410, { status => 410, error => 'This API has been retired.' } ], "X1: @$case is gone");
	}
	is(stop_sim($pid), 0, 'it ends in order');

	$pid = start_sim('--rest-v1', 'working', '--boot-seconds', 0);
	my %wish = (name => 'old', imageName => 'image:1', gpuTypeIds => ['NVIDIA L4'], gpuCount => 2, env => { A => 'b' });
	my ($status, $pod, $answer) = call(POST => '/v1/pods', \%wish);
	is($status, 201, 'X1: or a pod is made');
	is_deeply([ @$pod{qw(name desiredStatus imageName gpuCount costPerHr machine templateId env)} ],
		[ 'old', 'RUNNING', 'image:1', 2, 0.98, {}, '', { A => 'b' } ], 'X1: in other words');
	like($pod->{createdAt}, qr/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+0000 UTC$/, 'X1: with another time');
	ok(!exists $answer->{headers}{ratelimit}, 'X1: without quotas');
	my $list = (call(GET => '/v1/pods'))[1];
	is_deeply([ map { $_->{id} } @$list ], [ $pod->{id} ], 'X1: a list is a bare array');
	is((call(GET => "/v1/pods/$pod->{id}"))[1]{id}, $pod->{id}, 'X1: a pod is got');
	is(get($pod->{id})->{name}, 'old', 'X1: it is the same account');
	is_deeply([ (call(POST => '/v1/pods', { %wish, gpuTypeIds => [ 'NVIDIA GT 1030', 'NVIDIA L4' ] }))[ 0, 1 ] ],
		[ 500, { status => 500, error => "create pod: $capacity" } ], 'X1: what the user did wrong is 500');
	is_deeply([ (call(POST => '/v1/pods', { %wish, colour => 'red' }))[0], (call(POST => '/v1/pods', '['))[0] ], [ 400, 400 ], 'X1: or 400');
	is_deeply([ (call(POST => '/v1/pods', { %wish, interruptible => JSON::PP::true }))[ 0, 1 ] ],
		[ 500, { status => 500, error => 'create pod: Spot pods are no longer offered' } ], 'X2: there is no spot');
	is(scalar(listed()), 1, 'X2: and none is made');
	fault({ call => 'create', path => '/v1/*', action => 'status_after', status => 500, count => 1 });
	is_deeply([ (call(POST => '/v1/pods', \%wish))[ 0, 1 ] ], [ 500, { status => 500, error => 'Something went wrong.' } ], 'X1: rules apply');
	is(scalar(listed()), 2, 'X1: as they do elsewhere');
	is((call(GET => '/v1/pods', undef, Authorization => ''))[0], 401, 'X1: a key is needed');
	is((call(DELETE => "/v1/pods/$pod->{id}"))[0], 204, 'X1: a pod is deleted');
	is_deeply([ (call(DELETE => "/v1/pods/$pod->{id}"))[ 0, 1 ] ], [ 404, { status => 404, error => 'pod not found to terminate' } ], 'X1: once');
	is(line_of($pod->{id})->{ended_by}, 'delete', 'X1: and the ledger knows');
	is(stop_sim($pid), 0, 'it ends in order');
};

subtest 'the command line' => sub {
	my $run = sub {
		my $pid = open(my $out, '-|') // die "fork: $!";
		if ($pid == 0)
		{
			open STDERR, '>&', \*STDOUT;
			exec $program, @_;
		}
		my $said = join '', <$out>;
		close $out;
		return ($? >> 8, $said);
	};
	my ($status, $said) = $run->('--help');
	is($status, 0, '--help');
	like($said, qr/^Usage: runpod-sim /, 'tells how it is used');
	for my $bad (
		[ '0.0.0.0:0' => qr/loopback/ ], [ '192.0.2.1:80' => qr/loopback/ ], [ '[::]:0' => qr/loopback/ ],
		[ 'localhost' => qr/not an address/ ], [ ':0' => qr/./ ])
	{
		($status, $said) = $run->('--listen', $bad->[0], '--api-key', 'k');
		is($status, 1, "--listen $bad->[0] is refused");
		like($said, $bad->[1], 'and it says why');
	}
	for my $bad ([], [ '--listen', '127.0.0.1:0' ], [ '--api-key', 'k' ], [ '--seed', 'x' ], ['--nonsense'], [ '--status-mode', 'odd' ], [ '--rest-v1', 'odd' ], [ '--exited-cost', 'odd' ],
		[ '--listen', '127.0.0.1:0', '--api-key', 'k', '--tls-cert', $program ], [ '--tls-key', "$dir/no such file" ])
	{
		($status, $said) = $run->(@$bad);
		is($status, 2, "refused: @$bad");
	}
	open my $file, '>', "$dir/faults" or die;
	print $file encode_json([ { call => 'list', action => 'empty_list', count => 1 } ]);
	close $file;
	my $pid = start_sim('--faults', "$dir/faults", '--seed', 1);
	create();
	is_deeply([ scalar(listed()), scalar(listed()) ], [ 0, 1 ], 'rules to begin with');
	stop_sim($pid);
	open $file, '>', "$dir/faults" or die;
	print $file '[{"action": "nonsense"}]';
	close $file;
	($status, $said) = $run->('--listen', '127.0.0.1:0', '--api-key', 'k', '--faults', "$dir/faults");
	is($status, 2, 'rules that make no sense are refused');
	like($said, qr/no action nonsense/, 'and it says why');

	# A quota of one: of three requests that fall into two minutes at most, one is refused.
	$pid = start_sim('--quota', 1);
	my @answers = map { [ call(GET => '/v2/pods') ] } 1 .. 3;
	my ($refused) = grep { $_->[0] == 429 } @answers;
	ok($refused, 'T6: more than the quota is refused');
	like($refused->[2]{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'T6: with the time to wait');
	advance(60);
	is((call(GET => '/v2/pods'))[0], 200, 'T6: then it goes on');
	is(stop_sim($pid), 0, 'it ends in order');
};

done_testing();
