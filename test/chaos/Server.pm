# Server.pm: the throwaway server that chaos kills: made, started, killed in several ways, brought back with
# the clock that it had, and asked. Its clock is moved together with the provider's alone. Must not know what a
# round wants of it.
package Server;

use strict;
use warnings FATAL => 'all';
use Time::HiRes qw(sleep time);
use Wire;

my $database = 'chaos';

# new(DIRECTORY, KEY): a server in that folder, not started; KEY is the provider's.
sub new
{
	my ($class, $directory, $key) = @_;
	my $bin = `"\${PG_CONFIG:-pg_config}" --bindir`;
	chomp $bin;
	my $self = bless {directory => $directory, data => "$directory/data", bin => $bin, offset => 0}, $class;

	umask 077;
	_write("$directory/api_key", $key);
	$self->_run('initdb', '-D', $self->{data}, '-U', 'postgres', '-A', 'trust', '-N', '--locale=C.UTF-8', '-E', 'UTF8');
	return $self;
}

sub host { return $_[0]{directory}; }
sub port { return $ENV{PGPORT} || 5432; }
sub log_file { return "$_[0]{directory}/server.log"; }

sub _write
{
	my ($path, $text) = @_;

	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
	return;
}

# Run one of the server's programs; its output goes to a file. Returns its status.
sub _try
{
	my ($self, $program, @arguments) = @_;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{directory}/programs.log";
		open STDERR, '>&', \*STDOUT;
		exec "$self->{bin}/$program", @arguments or exit 127;
	}
	waitpid $pid, 0;
	return $?;
}

sub _run
{
	my ($self, @command) = @_;

	$self->_try(@command) == 0 or die "@command failed, see $self->{directory}/programs.log\n";
	return;
}

# configure(SETTING => VALUE...): the settings of the next start; %keep them over restarts.
sub configure
{
	my ($self, %settings) = @_;

	$self->{settings} = {
		listen_addresses => '',
		unix_socket_directories => $self->{directory},
		fsync => 'off',
		shared_buffers => '32MB',
		max_connections => 60,
		shared_preload_libraries => 'gpu_orch',
		'gpu_orch.database' => $database,
		'gpu_orch.test_clock' => 'on',
		'gpu_orch.runpod_api_key_file' => "$self->{directory}/api_key",
		'gpu_orch.worker_dsn' => sprintf('host=%s port=%d dbname=%s user=pod', $self->host, $self->port, $database),
		%settings };
	return;
}

# Write the settings and who may connect: everybody, or, while the clock is not right, we alone.
sub _write_settings
{
	my ($self, $open) = @_;
	my %settings = (%{ $self->{settings} }, 'gpu_orch.enabled' => $open ? 'on' : 'off');

	_write("$self->{data}/postgresql.conf", join '', map { "$_ = '$settings{$_}'\n" } sort keys %settings);
	_write("$self->{data}/pg_hba.conf", 'local all ' . ($open ? 'all' : 'postgres') . " trust\n");
	return;
}

# The postmaster's process id, 0 where none runs.
sub postmaster
{
	my ($self) = @_;

	open my $file, '<', "$self->{data}/postmaster.pid" or return 0;
	my $pid = (<$file> // '0') + 0;
	return $pid > 0 && !is_ended($pid) ? $pid : 0;
}

# is_ended(PID): whether a process has ended, though its parent may not have taken note yet.
sub is_ended
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 1;
	return (<$stat> // ') Z') =~ /\) [ZX]/;
}

sub children
{
	my ($pid) = @_;

	return grep {
		my $opened = open my $stat, '<', "/proc/$_/stat";
		$opened && (<$stat> // '') =~ /\) \S $pid /;
	} map { m{(\d+)} } glob '/proc/[0-9]*';
}

# start(PREPARE): start it closed, set the clock to where it was, let PREPARE do what must be done before
# the leader acts, and open it. What is left of a server that was killed is cleared away first.
sub start
{
	my ($self, $prepare) = @_;

	$self->_write_settings(0);
	unlink "$self->{data}/postmaster.pid", $self->host . '/.s.PGSQL.' . $self->port . '.lock';
	for my $try (1 .. 100)
	{
		last if $self->_try('pg_ctl', '-D', $self->{data}, '-l', $self->log_file, '-w', '-t', '30', 'start') == 0;
		die "the server does not start, see " . $self->log_file . "\n" if $try == 100;
		sleep 0.1;
	}
	$prepare->() if $prepare;
	$self->set_clock;
	$self->_write_settings(1);
	kill 'HUP', $self->postmaster;
	return;
}

# stop(): end it in order, where it runs.
sub stop
{
	my ($self) = @_;

	delete $self->{connection};
	$self->_try('pg_ctl', '-D', $self->{data}, '-m', 'fast', '-w', '-t', '30', 'stop') if $self->postmaster;
	$self->kill_all if $self->postmaster;
	return;
}

# kill_all(): kill -9 the postmaster, and wait until its children have seen it.
sub kill_all
{
	my ($self) = @_;
	my $postmaster = $self->postmaster or return;
	my @children = children($postmaster);

	delete $self->{connection};
	kill 'KILL', $postmaster;
	for my $turn (1 .. 1000)
	{
		last unless grep { !is_ended($_) } $postmaster, @children;
		kill 'KILL', @children if $turn == 100;
		sleep 0.01;
	}
	return;
}

# recover(): after a kill -9 of one of its processes: wait until the server is back by itself, or, where
# it does not come back by itself, until it is gone, and start it with the clock that it had.
sub recover
{
	my ($self) = @_;

	delete $self->{connection};
	if ($self->{settings}{restart_after_crash} eq 'off')
	{
		for (1 .. 3000)
		{
			last if !$self->postmaster;
			sleep 0.01;
		}
		$self->start;
	}
	$self->sql('SELECT 1');
	return;
}

# fresh(SETTING => VALUE...): a server with an empty database that has the extension, and the clock at zero.
sub fresh
{
	my ($self, %settings) = @_;

	$self->stop;
	$self->configure(%settings);
	$self->{offset} = 0;
	$self->start(sub {
		my $wire = Wire->new($self, 'postgres', 'postgres');

		for my $statement ("DROP DATABASE IF EXISTS $database WITH (FORCE)", 'DROP ROLE IF EXISTS pod', "CREATE DATABASE $database")
		{
			$wire->send_query($statement);
			my $answer = $wire->answer;
			die "$statement: $answer->{message}\n" if defined $answer->{state};
		}
		$self->sql('CREATE EXTENSION gpu_orch');
		$self->sql('CREATE ROLE pod LOGIN IN ROLE gpu_orch_worker, gpu_orch_submitter');
	});
	return;
}

# try_sql(QUERY): its rows, or undef where it failed or the server went away; $@ says why.
sub try_sql
{
	my ($self, $query) = @_;
	my $answer = eval {
		$self->{connection} ||= Wire->new($self, $database, 'postgres');
		$self->{connection}->send_query($query);
		$self->{connection}->answer;
	};

	if (!$answer)
	{
		delete $self->{connection};
		return;
	}
	return $answer->{rows} unless defined $answer->{state};
	$@ = "$answer->{state} $answer->{message}\n";
	return;
}

# sql(QUERY): its first row, as a list; tries again while the server is away, dies on an error of ours.
sub sql
{
	my ($self, $query) = @_;

	for (1 .. 600)
	{
		my $rows = $self->try_sql($query);

		return @{ $rows->[0] // [] } if $rows;
		die "$query: $@" if $@ =~ /^(?!57|08|53)[0-9A-Z]{5} /;
		sleep 0.05;
	}
	die "$query: no answer in time\n";
}

# set_clock(): bring the clock to its offset, which a crash has set back to nothing. Returns the clock.
sub set_clock
{
	my ($self) = @_;
	my ($lag) = $self->sql(
		"SELECT $self->{offset} - extract(epoch FROM gpu_orch.clock() - pg_catalog.clock_timestamp())");

	$self->sql("SELECT gpu_orch.advance_clock('$lag seconds')") if abs $lag > 0.01;
	return;
}

# step(SECONDS): move the clock; returns where it was before, in seconds.
sub step
{
	my ($self, $seconds) = @_;

	$self->set_clock;
	my ($at) = $self->sql('SELECT extract(epoch FROM gpu_orch.clock())');
	$self->{offset} += $seconds;
	$self->set_clock;
	return $at;
}

1;
