# The simulator against a schema of the provider's API, where one is at hand: see schema_check.py.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);

my $check = dirname(__FILE__) . '/../schema_check.py';

if (system('command -v python3 >/dev/null') != 0)
{
	print "1..0 # SKIP python3 is not installed\n";
	exit 0;
}
exec 'python3', $check or die "$check: $!";
