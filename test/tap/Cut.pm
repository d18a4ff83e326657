# Cut.pm: a proxy between the extension and runpod-sim that cuts single calls at a chosen place, and lets them take
# effect at once, never, or later. One process, one select loop; told what to do over a port of its own. It must
# not judge anything: what follows from a cut is the test's to say.
#
# A rule is for one call: "create WORKER", "delete WORKER" or "list", and used once. Its keys:
#   at         headers, body, silence: no answer, after so much of the request, or after a while
#              status, in_headers, in_body: the answer breaks off there
#              complete: a reset after the whole answer. slow: in parts, `gap` seconds apart. cap: too long an answer
#              hold: the answer waits for tell(release => 1). early: an answer before the body was read
#   executed   yes, no, or later, then after `seconds`
#   page       of a list: the rule is for this page, and before it the pod `vanish` is ended by its owner
package Cut;

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use List::Util qw(max min);
use POSIX ();
use Socket qw(MSG_PEEK SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

# What is answered where the provider itself has not executed anything (yet), by call and `executed`.
my %canned = ('create no' => 422, 'create later' => 504, 'delete no' => 409, 'delete later' => 204);

my ($upstream, $mode, $listener, $control, $port);
my (%rules, %clients, %worker_of, @timers, @held);

sub listen_on { return IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $_[0], Listen => 200,
	ReuseAddr => 1) || die "listen: $!"; }

# start(ADDRESS): a proxy before the simulator at that address; the object stops it when it goes.
sub start
{
	my ($class, $to) = @_;
	($upstream, $mode, $listener, $control) = ($to, 'pass', listen_on(0), listen_on(0));
	$port = $listener->sockport;
	my $self = bless { address => "127.0.0.1:$port", control => $control->sockport, owner => $$ }, $class;
	$self->{pid} = fork() // die "fork: $!";
	serve(getppid) if $self->{pid} == 0;
	close $_ for $listener, $control;
	return $self;
}

sub DESTROY
{
	local ($?, $!);
	kill('TERM', $_[0]{pid}) && waitpid $_[0]{pid}, 0 if $_[0]{owner} == $$;
}

# tell(rules => {CALL => RULE}, mode => pass, deaf (no connection is taken) or slam (each is reset when its request
# comes, of which nothing is read), release => 1): returns how many rules are not used yet, how many answers are held,
# and what is still to be done later.
sub tell
{
	my ($self, %command) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{control}) || die "proxy: $!";
	print $socket encode_json(\%command) . "\n";
	return decode_json(scalar <$socket>);
}

# ---- in the proxy's process, which ends with its owner ----

sub serve
{
	@SIG{qw(PIPE TERM)} = ('IGNORE', sub { POSIX::_exit(0) });
	turn() while getppid == $_[0];
	POSIX::_exit(0);
}

sub obey
{
	my $socket = $control->accept or return;
	my $command = decode_json(scalar <$socket> // '{}');
	%rules = (%rules, %{ $command->{rules} }) if $command->{rules};
	$mode = $command->{mode} // $mode;
	undef $listener if $mode eq 'deaf';
	$listener //= listen_on($port) if $mode ne 'deaf';
	give(@$_) for $command->{release} ? splice @held : ();
	print $socket encode_json({ rules => scalar keys %rules, held => scalar @held, later => scalar @timers }) . "\n";
}

sub later { my ($seconds, $do) = @_; @timers = sort { $a->[0] <=> $b->[0] } @timers, [ time + $seconds, $do ]; return; }

sub end
{
	my ($client, $reset) = @_;
	setsockopt $client, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if $reset;
	delete $clients{ fileno $client };
	return close $client;
}

# Write all of it; false where the client has gone.
sub give
{
	my ($client, $bytes) = @_;
	while (my $n = length $bytes && syswrite $client, $bytes) { substr $bytes, 0, $n, '' }
	return $bytes eq '';
}

# Have the provider do it; returns its answer, and remembers whose pod was made.
sub forward
{
	my ($request, $worker) = @_;
	my $server = IO::Socket::INET->new(PeerAddr => $upstream) || die "upstream: $!";
	$request =~ s/\r\n/\r\nConnection: close\r\n/;
	give($server, $request);
	my $answer = do { local $/; <$server> } // '';
	$worker_of{ decode_json($answer =~ s/.*?\r\n\r\n//sr)->{id} } = $worker if defined $worker && $answer =~ m{^HTTP/1.1 201};
	return $answer;
}

sub answer_of
{
	my ($status) = @_;
	my $body = $status == 204 ? '' : encode_json({ title => 'No', status => $status, detail => "the call ends with $status" });
	return "HTTP/1.1 $status Answer\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
	  . ($body && 'Content-Length: ' . length($body) . "\r\n") . "\r\n$body";
}

# An answer as a rule wants it, in parts.
sub parts_of
{
	my ($rule, $kind, $answer) = @_;
	my ($head, $body) = $answer =~ /^(.*?\r\n\r\n)(.*)$/s;
	my ($status) = $head =~ /^(.*?\r\n)/;
	my $at = $rule->{at};
	my $filler = 'x' x 1000;
	return $status if $at eq 'status';
	return substr $head, 0, length($status) + (length($head) - length $status) / 2 if $at eq 'in_headers';
	return $head . substr $body, 0, length($body) / 2 if $at eq 'in_body';
	return unpack sprintf('(a%d)*', 1 + length($answer) / 10), $answer if $at eq 'slow';
	return $answer if $at ne 'cap';
	return $status . "X-Padding: $filler\r\n" x 70 . substr $head, length $status if $kind eq 'delete';
	$head =~ s/^Content-Length: .*?\r\n//mi;
	return $head . '{"padding":"' . $filler x ($kind eq 'list' ? 17000 : 1100) . '",' . substr $body, 1;
}

# Send the parts, and end as the rule wants.
sub deliver
{
	my ($client, $rule, @parts) = @_;
	my $is_there = give($client, shift @parts);
	return later($rule->{gap}, sub { deliver($client, $rule, @parts) }) if @parts && $is_there;
	return end($client, $rule->{at} eq 'complete') if $rule->{at} ne 'early';
	return shutdown($client, 1) && later(0.3, sub { end($client) });
}

# A call under a rule: let it take effect, and answer as far as the rule goes.
sub play
{
	my ($client, $rule, $kind, $worker, $request) = @_;
	my ($at, $executed) = @$rule{qw(at executed)};
	my $answer = $executed eq 'yes' || $kind eq 'list' ? forward($request, $worker) :
		answer_of($at eq 'early' ? 413 : $canned{"$kind $executed"});
	later($rule->{seconds}, sub { forward($request, $worker) }) if $executed eq 'later' && $kind ne 'list';
	$answer = answer_of(500) if $at eq 'in_body' && $kind eq 'delete';
	return end($client, 1) if $at eq 'headers' || $at eq 'body';
	return later(0.3, sub { end($client) }) if $at eq 'silence';
	return push @held, [ $client, $answer ] if $at eq 'hold';
	return deliver($client, $rule, parts_of($rule, $kind, $answer));
}

# A client has sent something: nothing is taken before the request is complete, so that what is cut after its
# headers is cut with the body unread.
sub hear
{
	my ($client) = @_;
	defined recv $client, my $seen, 1 << 20, MSG_PEEK or return end($client);
	return end($client) if $seen eq '' || $seen !~ /^[A-Z]/;
	$seen =~ /^(.*?\r\n\r\n)(.*)$/s or return;
	my ($head, $body) = ($1, $2);
	return if $head =~ /^Content-Length: (\d+)\r/mi && length $body < $1;
	my ($method, $path, $query) = $head =~ m{^(\w+) ([^ ?]+)(\S*)};
	my $kind = { 'GET /v2/pods' => 'list', 'POST /v2/pods' => 'create' }->{"$method $path"} // lc $method;
	my $worker = $kind eq 'create' ? decode_json($body)->{env}{GPU_ORCH_WORKER_ID} : $worker_of{ ($path =~ m{(\w+)$})[0] // '' };
	my $call = $kind eq 'list' ? 'list' : "$kind " . ($worker // '');
	my $rule = $rules{$call} && $rules{$call}{page} && $query !~ /cursor=/ ? undef : delete $rules{$call};

	delete $clients{ fileno $client };
	forward(sprintf "POST /_sim/pods HTTP/1.1\r\nHost: sim\r\nContent-Length: %d\r\n\r\n%s", length $_, $_)
	  for $rule && $rule->{vanish} ? encode_json({ vanish => $rule->{vanish} }) : ();
	sysread $client, my $taken, $rule && $rule->{at} =~ /^(?:headers|early)$/ ? length $head : length $seen;
	return play($client, $rule, $kind, $worker, $seen) if $rule;
	give($client, forward($seen, $worker));
	return end($client);
}

# One turn of the loop.
sub turn
{
	my @sockets = grep { defined } $listener, $control, values %clients;
	for my $socket (IO::Select->new(@sockets)->can_read(max(0, min(1, map { $_->[0] - time } @timers))))
	{
		if ($socket == ($listener // 0)) { my $client = $listener->accept; $clients{ fileno $client } = $client if $client }
		elsif ($socket == $control) { obey() }
		elsif ($mode eq 'slam') { end($socket, 1) }
		else { hear($socket) }
	}
	(shift @timers)->[1]->() while @timers && $timers[0][0] <= time;
}

1;
